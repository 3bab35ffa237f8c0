"""Holds over HTTP: set aside, captured, released, ended by their time, and shown."""

from typing import Any

import httpx
import pytest

from support.api_answers import all_pages
from support.api_under_test import Api, User
from support.waiting import until


class Held:
    """A user with 100 euros on an account, another account, and what is asked about holds."""

    def __init__(self, user: User, account: str, other: str) -> None:
        self.user = user
        self.account = account
        self.other = other

    async def hold(self, amount: str = "40", **body: Any) -> dict[str, Any]:
        answer = await self.user.client.post(
            "/api/holds", json={"accountNumber": self.account, "amount": amount, **body}
        )
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        assert answer.headers["location"] == f"/api/holds/{made['holdId']}"
        return made

    async def post(
        self, path: str, body: dict[str, Any] | None = None, **more: Any
    ) -> httpx.Response:
        if body is None:
            return await self.user.client.post(path, **more)
        return await self.user.client.post(path, json=body, **more)

    async def done(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await self.post(path, body)
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.user.client.get(path)
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view

    async def money(self) -> tuple[str, str, str]:
        """Return balance, available and held of the account."""
        shown = await self.get(f"/api/accounts/{self.account}")
        return shown["balance"], shown["available"], shown["held"]


@pytest.fixture
async def held(user: User) -> Held:
    return Held(user, await user.account(balance="100"), await user.account())


async def test_a_hold_is_set_aside_captured_and_released(held: Held) -> None:
    made = await held.hold("40", receiverAccountNumber=held.other, reference="Hotel")
    assert (made["balance"], made["available"], made["amount"]) == ("100.00", "60.00", "40.00")
    assert await held.money() == ("100.00", "60.00", "40.00")
    path = f"/api/holds/{made['holdId']}"
    captured = await held.done(f"{path}/capture", {"amount": "15", "reference": "One night"})
    assert (captured["amount"], captured["left"], captured["released"]) == (
        "15.00",
        "25.00",
        "0.00",
    )
    assert captured["receiverAccountNumber"] == held.other
    assert (captured["balance"], captured["available"]) == ("85.00", "60.00")
    shown = await held.get(path)
    assert (shown["state"], shown["captured"], shown["left"]) == ("open", "15.00", "25.00")
    released = await held.done(f"{path}/release")
    assert (released["released"], released["available"]) == ("25.00", "85.00")
    shown = await held.get(path)
    assert (shown["state"], shown["captured"], shown["left"]) == ("released", "15.00", "0.00")
    assert await held.money() == ("85.00", "85.00", "0.00")
    entries = (await held.get(f"/api/accounts/{held.other}/entries"))["entries"]
    assert [(it["kind"], it["amount"], it["reference"]) for it in entries] == [
        ("capture", "15.00", "One night")
    ]


async def test_what_is_held_cannot_be_spent(held: Held) -> None:
    await held.hold("40")
    answer = await held.post("/api/withdraw", {"accountNumber": held.account, "amount": "60.01"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "insufficient_funds")
    assert (problem["needed"], problem["available"]) == ("60.01", "60.00")
    taken = await held.done("/api/withdraw", {"accountNumber": held.account, "amount": "60"})
    assert (taken["balance"], taken["available"]) == ("40.00", "0.00")


async def test_a_capture_takes_all_that_is_left(held: Held) -> None:
    path = f"/api/holds/{(await held.hold('40'))['holdId']}"
    captured = await held.done(f"{path}/capture")
    assert (captured["amount"], captured["left"], captured["balance"]) == ("40.00", "0.00", "60.00")
    assert (await held.get(path))["state"] == "captured"
    again = await held.post(f"{path}/capture")
    assert (again.status_code, again.json()["code"]) == (422, "hold_ended")


async def test_the_final_capture_releases_the_rest(held: Held) -> None:
    path = f"/api/holds/{(await held.hold('40'))['holdId']}"
    captured = await held.done(f"{path}/capture", {"amount": 10, "final": True})
    assert (captured["released"], captured["available"]) == ("30.00", "90.00")
    shown = await held.get(path)
    assert (shown["state"], shown["captured"]) == ("captured", "10.00")


async def test_more_than_is_left_is_not_captured(held: Held) -> None:
    path = f"/api/holds/{(await held.hold('40'))['holdId']}"
    answer = await held.post(f"{path}/capture", {"amount": "40.01"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "hold_exceeded")
    assert (problem["needed"], problem["available"]) == ("40.01", "40.00")
    assert await held.money() == ("100.00", "60.00", "40.00")


async def test_a_hold_ends_by_itself(held: Held) -> None:
    made = await held.hold("40", expiresIn=1)
    path = f"/api/holds/{made['holdId']}"

    async def has_ended() -> bool:
        state: str = (await held.get(path))["state"]
        return state == "expired"

    await until("the hold has ended", has_ended, seconds=60)
    assert await held.money() == ("100.00", "100.00", "0.00")
    answer = await held.post(f"{path}/capture")
    assert (answer.status_code, answer.json()["code"]) == (422, "hold_ended")


@pytest.mark.parametrize("action", ["capture", "release"])
async def test_a_repeat_gets_the_first_answer(held: Held, action: str) -> None:
    path = f"/api/holds/{(await held.hold('40'))['holdId']}/{action}"
    key = {"Idempotency-Key": "once"}
    first = await held.post(path, {}, headers=key)
    again = await held.post(path, {}, headers=key)
    assert first.status_code == 200, first.text
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    operation = await held.get(f"/api/operations/{first.json()['operationId']}")
    shared = set(operation) & set(first.json())
    assert {name: operation[name] for name in shared} == {it: first.json()[it] for it in shared}
    assert {"holdId", "released", "balance", "available"} <= shared


async def test_a_stranger_sees_no_hold(api: Api, held: Held) -> None:
    made = await held.hold("40")
    stranger = (await api.user()).client
    path = f"/api/holds/{made['holdId']}"
    for answer in (
        await stranger.get(path),
        await stranger.post(f"{path}/capture"),
        await stranger.post(f"{path}/release"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "hold_not_found"), answer.text
        assert "40.00" not in answer.text
    answer = await stranger.get(f"/api/holds?account={held.account}")
    assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")
    assert await held.money() == ("100.00", "60.00", "40.00")


@pytest.mark.parametrize("change", ["x", "{}-{}", "{}x{}"])
async def test_what_is_no_hold(held: Held, change: str) -> None:
    made = await held.hold("40")
    _, _, operation = made["holdId"].partition("-")
    for hold in (
        change.format(held.other, operation),
        change.format(held.account, "0" * 32),
        change.format(held.account, operation[1:]),
    ):
        for answer in (
            await held.user.client.get(f"/api/holds/{hold}"),
            await held.post(f"/api/holds/{hold}/capture"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "hold_not_found"), hold


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"expiresIn": 0}, "invalid_body"),
        ({"expiresIn": 31 * 24 * 3600 + 1}, "invalid_body"),
        ({"expiresIn": "7"}, "invalid_body"),
        ({"amount": "0"}, "invalid_amount"),
        ({"receiverAccountNumber": "1"}, "invalid_account_number"),
        ({"other": 1}, "invalid_body"),
    ],
)
async def test_unfit_bodies(held: Held, body: dict[str, Any], code: str) -> None:
    answer = await held.post("/api/holds", {"accountNumber": held.account, "amount": "1", **body})
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text


async def test_nobody_holds_for_the_same_account(held: Held) -> None:
    body = {"accountNumber": held.account, "amount": "1", "receiverAccountNumber": held.account}
    answer = await held.post("/api/holds", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "same_account")


async def test_open_holds_are_listed_in_pages(held: Held) -> None:
    made = [await held.hold("1", expiresIn=seconds) for seconds in (5_000, 4_000, 3_000, 2_000)]
    await held.done(f"/api/holds/{made[1]['holdId']}/release")
    expected = [made[it]["holdId"] for it in (3, 2, 0)]
    for limit in (1, 2, 3, 200):
        listed = await all_pages(held.user, f"/api/holds?account={held.account}", "holds", limit)
        assert [it["holdId"] for it in listed] == expected
    for query in ("limit=0", "cursor=x", "cursor=1.2"):
        answer = await held.user.client.get(f"/api/holds?account={held.account}&{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), query


async def test_what_was_asked_on_holds_is_in_the_list_of_operations(held: Held) -> None:
    first, second = await held.hold("10", reference="a"), await held.hold("5")
    captured = await held.done(f"/api/holds/{first['holdId']}/capture", {"amount": "1"})
    released = await held.done(f"/api/holds/{second['holdId']}/release", {"reference": "b"})
    listed = (await held.get(f"/api/operations?account={held.account}"))["operations"]
    found = [(it["kind"], it["operationId"]) for it in listed]
    assert found[:4] == [
        ("release", released["operationId"]),
        ("capture", captured["operationId"]),
        ("hold", second["operationId"]),
        ("hold", first["operationId"]),
    ]
    for kind in ("hold", "capture", "release"):
        page = await held.get(f"/api/operations?account={held.account}&kind={kind}")
        assert {it["kind"] for it in page["operations"]} == {kind}
    assert [it["holdId"] for it in listed[:4]] == [
        *(second["holdId"], first["holdId"], second["holdId"], first["holdId"])
    ]


async def test_a_capture_whose_receiver_is_frozen_comes_back_to_what_is_available(
    held: Held,
) -> None:
    """On whatever partition the receiver is, nothing of the hold is lost."""
    made = await held.hold("40", receiverAccountNumber="100000000008")
    answer = await held.post(f"/api/holds/{made['holdId']}/capture")
    assert (answer.status_code, answer.json()["code"]) == (422, "account_not_found"), answer.text
    shown = await held.get(f"/api/holds/{made['holdId']}")
    refunded = answer.json()["operationStatus"] == "refunded"
    assert shown["state"] == ("captured" if refunded else "open")
    assert (await held.money())[0] == "100.00"
