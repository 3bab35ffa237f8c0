"""The list of one's own operations: complete, in order, and without those of others."""

import base64
from typing import Any

import pytest

from microfin_api.endpoints import operation_list
from microfin_api.endpoints.operation_list import _Item, _merge, _Stream, _Wanted
from support.api_answers import all_pages
from support.api_under_test import Api, User


async def pages(user: User, query: str = "", limit: int = 50) -> list[dict[str, Any]]:
    """Return the operations on all pages."""
    return await all_pages(user, f"/api/operations?{query}", "operations", limit)


async def ask(user: User, path: str, **body: str) -> str:
    """Ask for an operation; return its id, settled or not."""
    answer = await user.client.post(path, json=body)
    assert answer.status_code in (200, 201, 422), answer.text
    operation: str = answer.json()["operationId"]
    return operation


class Lived:
    """A user with two accounts, what was asked for, oldest first, and another user's account."""

    def __init__(self, user: User, stranger: User) -> None:
        self.user = user
        self.stranger = stranger
        self.accounts: list[str] = []
        self.asked: list[str] = []
        self.theirs = ""

    @classmethod
    async def of(cls, api: Api, rounds: int = 1) -> "Lived":
        lived = cls(await api.user(), await api.user())
        await lived.live(rounds)
        return lived

    async def live(self, rounds: int) -> None:
        user, asked = self.user, self.asked
        self.theirs = await self.stranger.account(balance="100")
        for _ in range(2):
            answer = await user.client.post("/api/accounts", json={})
            self.accounts.append(answer.json()["accountNumber"])
            asked.append(answer.json()["operationId"])
        first, second = self.accounts
        for turn in range(rounds):
            here = {"accountNumber": first}
            out = {"senderAccountNumber": first}
            back = {"senderAccountNumber": self.theirs, "receiverAccountNumber": first}
            asked.append(await ask(user, "/api/deposit", **here, amount="9", reference=f"r{turn}"))
            asked.append(await ask(user, "/api/withdraw", **here, amount="1000"))
            asked.append(
                await ask(user, "/api/transfer", **out, receiverAccountNumber=second, amount="1")
            )
            await ask(self.stranger, "/api/transfer", **back, amount="1")
            asked.append(
                await ask(
                    user, "/api/transfer", **out, receiverAccountNumber=self.theirs, amount="2"
                )
            )
            asked.append(await ask(user, "/api/deposit", accountNumber=second, amount="1"))
            foreign = {**here, "amount": "1"}
            assert (await self.stranger.client.post("/api/deposit", json=foreign)).is_error


def ids(listed: list[dict[str, Any]]) -> list[str]:
    return [it["operationId"] for it in listed]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 200])
async def test_all_that_was_asked_for_is_listed_once_in_order(api: Api, limit: int) -> None:
    lived = await Lived.of(api, rounds=2)
    newest = await pages(lived.user, "", limit)
    oldest = await pages(lived.user, "order=oldest", limit)
    assert ids(newest) == lived.asked[::-1]
    assert ids(oldest) == lived.asked
    for shown in newest:
        answer = await lived.user.client.get(f"/api/operations/{shown['operationId']}")
        assert answer.json() == shown


async def test_the_list_is_filtered(api: Api) -> None:
    lived = await Lived.of(api, rounds=2)
    user, (first, second) = lived.user, lived.accounts
    every = await pages(user)
    for query, wanted in {
        f"account={first}": lambda it: it["accountNumber"] == first,
        f"account={second}": lambda it: it["accountNumber"] == second,
        "kind=deposit": lambda it: it["kind"] == "deposit",
        "kind=open": lambda it: it["kind"] == "open",
        "kind=withdraw": lambda it: it["kind"] == "withdraw",
        "status=rejected": lambda it: it["status"] == "rejected",
        "status=settled&kind=transfer": lambda it: (
            it["status"] == "settled" and it["kind"] == "transfer"
        ),
        "reference=r1": lambda it: it.get("reference") == "r1",
        "metadata=none": lambda _: False,
    }.items():
        expected = [it for it in every if wanted(it)]
        for limit in (1, 2, 200):
            assert await pages(user, query, limit) == expected, query
            assert await pages(user, f"order=oldest&{query}", limit) == expected[::-1], query
        assert expected or "metadata" in query


async def test_a_period_is_listed(api: Api) -> None:
    lived = await Lived.of(api)
    entries = await lived.user.client.get(f"/api/accounts/{lived.accounts[0]}/entries")
    moments = sorted(it["time"] for it in entries.json()["entries"])
    account = f"account={lived.accounts[0]}"
    every = ids(await pages(lived.user, account))
    for moment in moments:
        later = ids(await pages(lived.user, f"{account}&from={moment}", 2))
        earlier = ids(await pages(lived.user, f"{account}&to={moment}", 2))
        assert later + earlier == every


async def test_nothing_of_others_is_listed(api: Api) -> None:
    lived = await Lived.of(api)
    assert not set(ids(await pages(lived.stranger))) & set(lived.asked)
    for query in (f"account={lived.theirs}", "account=1", "account="):
        answer = await lived.user.client.get(f"/api/operations?{query}")
        assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")
    listed = await lived.stranger.client.get("/api/operations?limit=1")
    cursor = listed.json()["nextCursor"]
    stolen = await lived.user.client.get(f"/api/operations?cursor={cursor}")
    assert (stolen.status_code, stolen.json()["code"]) == (404, "account_not_found")


@pytest.mark.parametrize(
    "query",
    ["cursor=", "cursor=x", "cursor=W10%3D", "cursor=bnVsbA%3D%3D", "limit=0", "status=gone"],
)
async def test_unfit_parameters(user: User, query: str) -> None:
    answer = await user.client.get(f"/api/operations?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), query


async def test_a_status_that_there_is_not_is_answered_with_those_that_there_are(user: User) -> None:
    answer = await user.client.get("/api/operations?status=gone")
    expected = "status is one of in_transit, settled, rejected, refunded."
    assert answer.json()["detail"] == expected


@pytest.mark.parametrize(
    "place",
    [
        '"SEQ"',
        "0",
        "99999999999999999999",
        'null,[99999999999,0,"a"]',
        'null,[0,-1,"00000000000000000000000000000000"]',
        'null,[0,0,"nobody"]',
        "null,null,1",
    ],
)
async def test_a_forged_cursor_is_refused(user: User, place: str) -> None:
    number = await user.account()
    text = f'[["{number}",{place}]]'.encode()
    cursor = base64.urlsafe_b64encode(text).decode()
    answer = await user.client.get("/api/operations", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


async def test_users_with_many_accounts_name_one(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_list, "ACCOUNTS_MOST", 2)
    numbers = [await user.account() for _ in range(3)]
    answer = await user.client.get("/api/operations")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert "name one" in answer.json()["detail"]
    assert len(await pages(user, f"account={numbers[0]}")) == 1


async def test_nobody_has_operations_before_the_first_account(user: User) -> None:
    assert await pages(user) == []


def stream(*times: int, goes_on: bool = False, follow_until: int | None = None) -> _Stream:
    items = [_Item(time, str(time), time) for time in times]
    return _Stream(items, 1 if goes_on else None, follow_until)


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        (stream(8, 4), ["9", "8", "7", "5", "4", "3"]),
        (stream(8, 4, goes_on=True), ["9", "8", "7", "5", "4"]),
        (stream(8, goes_on=True), ["9", "8"]),
        (stream(goes_on=True), []),
        (stream(goes_on=True, follow_until=2), ["9", "7", "5", "3"]),
        (stream(goes_on=True, follow_until=5), ["9", "7"]),
        (stream(8, goes_on=True, follow_until=6), ["9", "8", "7"]),
    ],
)
def test_nothing_is_taken_before_what_was_not_read(other: _Stream, taken: list[str]) -> None:
    wanted = _Wanted("", False, None, None, None, 50)
    assert _merge([stream(9, 7, 5, 3), other], wanted) == taken
