"""A reference, which both sides see, and metadata, which its sender sees."""

import csv
import io
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from microfin.ledger import wire
from microfin.ledger.account_number import check_digit
from microfin.ledger.routing import partition_of
from support.api_under_test import PARTITIONS, Api, Ledger, User
from support.waiting import until_true

INVOICE = "Invoice 2026-117, 'Überweisung' \\"
PAIRS = {"order": "A-17", "customer": 'Zoë \\ "x"'}


async def transfer(user: User, sender: str, receiver: str, **notes: Any) -> dict[str, Any]:
    body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": "1"}
    answer = await user.client.post("/api/transfer", json=body | notes)
    assert answer.status_code == 200, answer.text
    settled: dict[str, Any] = answer.json()
    return settled


async def lines(user: User, number: str, **headers: str) -> Any:
    answer = await user.client.get(f"/api/accounts/{number}/entries", headers=headers)
    assert answer.status_code == 200, answer.text
    if headers:
        return list(csv.DictReader(io.StringIO(answer.text)))
    return answer.json()["entries"]


async def receivers(api: Api, sender: User, number: str) -> list[tuple[User, str]]:
    """Return another user's accounts: one on the sender's partition, and one on another."""
    other = await api.user()
    found: dict[bool, str] = {}
    while len(found) < PARTITIONS:
        account = await other.account()
        found[partition_of(account, PARTITIONS) == partition_of(number, PARTITIONS)] = account
    return [(other, account) for account in found.values()]


def missing() -> list[str]:
    """Return a number that is no account for each partition."""
    found: dict[int, str] = {}
    for body in map(str, range(99_999_999_900, 99_999_999_999)):
        number = body + check_digit(body)
        found[partition_of(number, PARTITIONS)] = number
    return list(found.values())


async def test_both_sides_see_the_reference_and_the_sender_alone_the_metadata(
    api: Api, user: User
) -> None:
    number = await user.account(balance="10")
    for other, receiver in await receivers(api, user, number):
        settled = await transfer(user, number, receiver, reference=INVOICE, metadata=PAIRS)
        assert settled["reference"] == INVOICE
        assert (await lines(user, number))[0]["reference"] == INVOICE
        theirs = (await lines(other, receiver))[0]
        assert theirs["reference"] == INVOICE
        assert "metadata" not in theirs
        operation = f"/api/operations/{settled['operationId']}"
        shown = (await user.client.get(operation)).json()
        assert (shown["reference"], shown["metadata"]) == (INVOICE, PAIRS)
        assert (await other.client.get(operation)).status_code == 404


@pytest.mark.parametrize("kind", ["deposit", "withdraw"])
async def test_cash_has_them_too(user: User, kind: str) -> None:
    number = await user.account(balance="10")
    body = {"accountNumber": number, "amount": "1", "reference": INVOICE, "metadata": PAIRS}
    settled = (await user.client.post(f"/api/{kind}", json=body)).json()
    assert settled["reference"] == INVOICE
    shown = (await user.client.get(f"/api/operations/{settled['operationId']}")).json()
    assert (shown["kind"], shown["metadata"]) == (kind, PAIRS)


async def test_a_refunded_transfer_keeps_its_reference(user: User) -> None:
    number = await user.account(balance="10")
    body = {"senderAccountNumber": number, "amount": "1", "reference": INVOICE, "metadata": PAIRS}
    for receiver in missing():
        request = body | {"receiverAccountNumber": receiver}
        answer = await user.client.post("/api/transfer", json=request)
        assert answer.status_code == 422, answer.text
        shown = await user.client.get(f"/api/operations/{answer.json()['operationId']}")
        assert shown.json()["reference"] == INVOICE
        assert shown.json()["metadata"] == PAIRS
    moved = [it for it in await lines(user, number) if it["kind"] == "transfer"]
    assert [it["leg"] for it in moved] == ["refund", "request"]
    assert {it["reference"] for it in moved} == {INVOICE}


async def test_they_are_part_of_what_was_asked(user: User) -> None:
    number = await user.account(balance="10")
    body = {"accountNumber": number, "amount": "1", "reference": "a", "metadata": {"x": "1"}}
    headers = {"Idempotency-Key": uuid4().hex}
    first = await user.client.post("/api/deposit", json=body, headers=headers)
    again = await user.client.post("/api/deposit", json=body, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    for change in ({"reference": "b"}, {"reference": ""}, {"metadata": {"x": "2"}}):
        other = await user.client.post("/api/deposit", json=body | change, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "key_reused")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("  Rent  ", "Rent"),
        ("Zu\u0308rich", "Z\u00fcrich"),
        ("", None),
        ("   ", None),
        ("x" * 140, "x" * 140),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
    ],
)
async def test_a_reference_is_kept_composed(user: User, sent: str, kept: str | None) -> None:
    number = await user.account()
    body = {"accountNumber": number, "amount": "1", "reference": sent}
    answer = await user.client.post("/api/deposit", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json().get("reference") == kept


@pytest.mark.parametrize(
    ("notes", "place"),
    [
        ({"reference": "x" * 141}, "$.reference"),
        ({"reference": "a\nb"}, "$.reference"),
        ({"reference": "a\u0000b"}, "$.reference"),
        ({"reference": "\u202egnirts"}, "$.reference"),
        ({"reference": 7}, "$.reference"),
        ({"metadata": {"a": 1}}, "$.metadata"),
        ({"metadata": {"a\u0007": "b"}}, "$.metadata"),
        ({"metadata": {"a": "\u0000"}}, "$.metadata"),
        ({"metadata": {"": "b"}}, "$.metadata"),
        ({"metadata": {str(it): "" for it in range(21)}}, "$.metadata"),
        ({"metadata": {"a": "\u00fc" * 1_024}}, "$.metadata"),
        ({"metadata": {"\u00fc": "1", "u\u0308": "2"}}, "$.metadata"),
        ({"metadata": [["a", "b"]]}, "$.metadata"),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_place(
    user: User, notes: dict[str, Any], place: str
) -> None:
    number = await user.account()
    body = {"accountNumber": number, "amount": "1", **notes}
    answer = await user.client.post("/api/deposit", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    assert place in answer.json()["detail"]
    assert await user.balance(number) == "0.00"


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1"])
async def test_no_reference_is_a_formula_in_a_spreadsheet(user: User, formula: str) -> None:
    number = await user.account()
    body = {"accountNumber": number, "amount": "1", "reference": formula}
    assert (await user.client.post("/api/deposit", json=body)).status_code == 200
    [line] = await lines(user, number, Accept="text/csv")
    assert line["reference"] == f"'{formula}"
    assert (await lines(user, number))[0]["reference"] == formula


async def test_none_is_sent_before_all_workers_read_it(
    ledger: Ledger, api: Api, user: User
) -> None:
    """Such a record would stop a worker of the release before."""
    number = await user.account()
    body = {"accountNumber": number, "amount": "1"}
    lease = api.services.leases.of_account(number)
    owner = await asyncpg.connect(
        ledger.platform.postgres_direct(database=ledger.databases[0]), ssl=False
    )
    try:
        await owner.execute("UPDATE partitions SET wire_epoch = wire_epoch - 1")
        await until_true(lambda: lease.latest is not None and lease.latest.wire_version == 1)
        answer = await user.client.post("/api/deposit", json=body | {"reference": "x"})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "upgrade" in answer.json()["detail"]
        assert (await user.client.post("/api/deposit", json=body)).status_code == 200
    finally:
        await owner.execute("UPDATE partitions SET wire_epoch = epoch")
        await owner.close()
    await until_true(lambda: lease.latest is not None and lease.latest.wire_version == wire.VERSION)
    answer = await user.client.post("/api/deposit", json=body | {"reference": "x"})
    assert answer.status_code == 200, answer.text
    assert await user.balance(number) == "2.00"
