"""Every answer names its request: in a header, in a problem's document, and in the log."""

import json

import pytest
import structlog

from support.api_under_test import Api, Ledger, running

SANE = ["abcdefgh", "0" * 64, "A.b_c-d.9", "8e03978e-40d5-43dd-bc93-6894a57f9324"]
NOT_SANE = ["", "short", "x" * 65, "a b c d e f", 'ab"cdefgh', "abcdefg\xe9", "abcdefgh\t", "{}"]


@pytest.mark.parametrize("sent", SANE)
async def test_a_sane_id_is_taken_over(api: Api, sent: str) -> None:
    async with api.client() as client:
        answer = await client.get("/api/me", headers={"X-Request-Id": sent})
        assert answer.headers["x-request-id"] == sent
        assert answer.json()["requestId"] == sent


@pytest.mark.parametrize("sent", [None, *NOT_SANE])
async def test_otherwise_one_is_made(api: Api, sent: str | None) -> None:
    headers = {} if sent is None else {b"X-Request-Id": sent.encode("latin-1")}
    async with api.client() as client:
        made = set()
        for path in ("/api/me", "/api/nothing", "/api/deposit", "/healthz", "/docs", "/api/me"):
            answer = await client.get(path, headers=headers)
            made.add(answer.headers["x-request-id"])
            if answer.headers["content-type"] == "application/problem+json":
                assert answer.json()["requestId"] == answer.headers["x-request-id"]
        assert len(made) == 6
        assert all(len(it) == 24 and it.isalnum() for it in made)


async def test_two_ids_are_none(api: Api) -> None:
    async with api.client() as client:
        sent = [("X-Request-Id", "abcdefgh"), ("X-Request-Id", "ijklmnop")]
        answer = await client.get("/api/me", headers=sent)
        assert answer.headers["x-request-id"] not in ("abcdefgh", "ijklmnop")


async def test_a_refusal_names_its_request(ledger: Ledger) -> None:
    async with running(ledger.settings(request_limit=1)) as api, api.client() as client:
        api.app._under_way = 1  # type: ignore[attr-defined]
        answer = await client.get("/api/me", headers={"X-Request-Id": "refused-1"})
        assert answer.status_code == 503
        assert answer.headers["x-request-id"] == answer.json()["requestId"] == "refused-1"


async def test_the_log_names_the_request(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.reset_defaults()
    processors = [structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()]
    structlog.configure(processors, logger_factory=structlog.PrintLoggerFactory())  # type: ignore[arg-type]

    async def broken(*_: object) -> None:
        structlog.get_logger().error("broken")
        raise ConnectionResetError

    monkeypatch.setattr(api.services.sessions, "require", broken)
    try:
        async with api.client() as client:
            answer = await client.get("/api/me", headers={"X-Request-Id": "logged-1"})
    finally:
        structlog.reset_defaults()
    assert answer.status_code == 503
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "broken" in line]
    assert [line["request_id"] for line in lines] == ["logged-1"]
