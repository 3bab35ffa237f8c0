"""schemathesis against the OpenAPI document: no 5xx, no undocumented answer."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.api_under_test import PASSWORD, Ledger, api_process
from support.waiting import until_ready

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)


async def schemathesis(document: Path, url: str, *arguments: str) -> None:
    running = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        str(document),
        f"--url={url}",
        f"--checks={','.join(CHECKS)}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=25",
        "--continue-on-failure",
        "--seed=1",
        "--no-color",
        "--warnings=off",
        *arguments,
        cwd=document.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await running.communicate()
    assert running.returncode == 0, said.decode()[-6000:]


def with_accounts(document: dict[str, Any], numbers: list[str]) -> dict[str, Any]:
    """Return the document with accounts that exist, so that not all requests end at the door."""
    schemas = document["components"]["schemas"]
    for body, field in (
        ("DepositBody", "accountNumber"),
        ("TransferBody", "senderAccountNumber"),
        ("TransferBody", "receiverAccountNumber"),
    ):
        schemas[body]["properties"][field] = {"type": "string", "enum": numbers}
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "number":
                    parameter["schema"] = {"type": "string", "enum": numbers}
    return document


@pytest.mark.timeout(300)
async def test_the_document_is_kept(ledger: Ledger, tmp_path: Path) -> None:
    costs = {"MICROFIN_ARGON2_MEMORY": "8", "MICROFIN_ARGON2_TIME": "1"}
    rates = {f"MICROFIN_SIGN_{it}_RATE": "0" for it in ("IN", "IN_EMAIL", "UP_ADDRESS")}
    async with api_process(ledger, **costs, **rates) as (url, _):
        await until_ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            numbers = []
            for email in ("first@schema.example", "second@schema.example"):
                body = {"name": "Anna", "email": email, "password": PASSWORD}
                session_id = (await client.post("/api/signup", json=body)).json()["sessionId"]
                for currency in ("EUR", "EUR", "JPY"):
                    opened = await client.post("/api/accounts", json={"currency": currency})
                    numbers.append(opened.json()["accountNumber"])
                    deposit = {"accountNumber": numbers[-1], "amount": "1000000"}
                    assert (await client.post("/api/deposit", json=deposit)).status_code == 200
            document = with_accounts((await client.get("/openapi.json")).json(), numbers)
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(document))
        bearer = f"--header=Authorization: Bearer {session_id}"
        await schemathesis(file, url, bearer, "--exclude-path=/api/signout")
        await schemathesis(file, url, "--include-path=/api/signout")
