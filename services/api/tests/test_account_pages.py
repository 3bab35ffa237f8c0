"""No user's accounts or entries cost more than a page of them, and nobody opens without end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from microfin.ledger.routing import shard_of_account
from microfin.postgres import statements
from microfin.postgres.connections import Pool
from microfin_api.commands import account_cap
from microfin_local.platform import Platform
from support.api_under_test import Ledger, User, running

SHARDS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two_shards(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ledger]:
    async with Ledger(platform, tmp_path_factory.mktemp("two"), shards=SHARDS) as ledger:
        yield ledger


async def page_of(user: User, query: str) -> tuple[list[str], str]:
    """Return the numbers on a page, and the cursor of the next one, if any."""
    answer = await user.client.get(f"/api/accounts?{query}")
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return [it["accountNumber"] for it in page["accounts"]], page.get("nextCursor", "")


async def pages_of(user: User, limit: int) -> list[list[str]]:
    """Return the numbers on all pages."""
    numbers, cursor = await page_of(user, f"limit={limit}")
    pages = [numbers]
    while cursor:
        numbers, cursor = await page_of(user, f"limit={limit}&cursor={cursor}")
        pages.append(numbers)
    return pages


async def test_accounts_come_in_pages_from_all_shards(two_shards: Ledger) -> None:
    async with running(two_shards.settings()) as api:
        user, other = await api.user(), await api.user()
        opened = []
        while len({shard_of_account(it, SHARDS) for it in opened}) < SHARDS or len(opened) < 7:
            opened.append(await user.account())
            await other.account()
        for limit in (1, 3, len(opened), 200):
            pages = await pages_of(user, limit)
            assert [number for page in pages for number in page] == opened
            assert all(len(page) <= limit for page in pages)
        first, _ = await page_of(user, "")
        assert first == opened


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=",
        "cursor=1",
        "cursor=1.2",
        "cursor=-1.100000000008",
        "cursor=1.100000000008x",
        "cursor=%D9%A1.100000000008",
        "cursor=1234567890123456.100000000008",
    ],
)
async def test_unfit_pages_are_refused(user: User, query: str) -> None:
    answer = await user.client.get(f"/api/accounts?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")


async def test_a_user_may_have_so_many_accounts(two_shards: Ledger) -> None:
    async with running(two_shards.settings(accounts_per_user=3)) as api:
        user = await api.user()
        key = {"Idempotency-Key": "the first"}
        first = await user.client.post("/api/accounts", json={}, headers=key)
        await user.account()
        await user.account()
        for path in ("/api/accounts", "/api/accountGeneration"):
            refused = await user.client.post(path, json={}, headers={"Idempotency-Key": path})
            assert (refused.status_code, refused.json()["code"]) == (409, "too_many_accounts")
            assert refused.headers["idempotency-key"] == path
            operation = refused.json()["operationId"]
            assert (await user.client.get(f"/api/operations/{operation}")).status_code == 404
        refused = await user.client.get("/api/accountGeneration")
        assert refused.status_code == 409
        assert refused.headers["idempotency-key"]

        # A repeat gets its first answer, and nobody else is concerned.
        again = await user.client.post("/api/accounts", json={}, headers=key)
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["idempotency-replayed"] == "true"
        assert len((await page_of(user, ""))[0]) == 3
        await (await api.user()).account()


async def test_a_repeat_of_a_rejected_opening_is_rejected_as_before(ledger: Ledger) -> None:
    async with running(ledger.settings(accounts_per_user=1)) as api:
        user = await api.user()
        key = {"Idempotency-Key": "no such currency"}
        rejected = await user.client.post("/api/accounts", json={"currency": "EEK"}, headers=key)
        await user.account()
        again = await user.client.post("/api/accounts", json={"currency": "EEK"}, headers=key)
        first, repeated = rejected.json(), again.json()
        assert first.pop("requestId") != repeated.pop("requestId")
        assert repeated == first


async def test_what_is_asked_for_at_one_time_exceeds_the_cap_by_that_at_most(
    ledger: Ledger,
) -> None:
    async with running(ledger.settings(accounts_per_user=2)) as api:
        user = await api.user()
        for _ in range(2):
            await asyncio.gather(*(user.client.post("/api/accounts", json={}) for _ in range(6)))
        assert 2 <= len((await page_of(user, ""))[0]) <= 2 + 6


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """What every count of a user's accounts came to."""
    found: list[int | None] = []
    count = account_cap._count

    async def noted(pool: Pool, user: str, most: int) -> int | None:
        found.append(await count(pool, user, most))
        return found[-1]

    monkeypatch.setattr(account_cap, "_count", noted)
    return found


async def test_accounts_are_counted_now_and_then_and_each_time_near_the_cap(
    ledger: Ledger, counted: list[int | None]
) -> None:
    async with running(ledger.settings(accounts_per_user=34)) as api:
        user = await api.user()
        for _ in range(34):
            await user.account()
        refused = await user.client.post("/api/accounts", json={})
        assert (refused.status_code, refused.json()["code"]) == (409, "too_many_accounts")
        await (await api.user()).account()
    # A sixteenth of the room goes without a count: two accounts of 34, one of 31 and of 29, ...
    assert counted == [0, *range(3, 19, 2), *range(19, 35), 0]


async def test_what_a_count_allows_ends_after_a_while(
    ledger: Ledger, counted: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_cap, "_QUOTA_SECONDS", 0.0)
    async with running(ledger.settings(accounts_per_user=100)) as api:
        user = await api.user()
        for _ in range(3):
            await user.account()
    assert counted == [0, 1, 2]


async def test_a_count_that_lacks_a_shard_allows_one_opening(
    two_shards: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, asked = account_cap._count, []
    async with running(two_shards.settings(accounts_per_user=100)) as api:

        async def without_the_second(pool: Pool, user: str, most: int) -> int | None:
            asked.append(pool)
            return None if pool is api.services.pools[1] else await count(pool, user, most)

        monkeypatch.setattr(account_cap, "_count", without_the_second)
        user = await api.user()
        for _ in range(2):
            await user.account()
    assert len(asked) == 2 * SHARDS


async def test_entries_of_a_rare_kind_are_sought_page_by_page(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "SCANNED_FOR_A_KIND", 2)
    number = await user.account()
    body = {"accountNumber": number, "amount": "1"}
    for path in ("deposit", "withdraw", "deposit", "deposit", "deposit", "deposit", "withdraw"):
        assert (await user.client.post(f"/api/{path}", json=body)).status_code == 200
    path = f"/api/accounts/{number}/entries?kind=withdraw"
    found, cursor, pages = [], "", 0
    while cursor or not pages:
        page = (await user.client.get(f"{path}&cursor={cursor}" if cursor else path)).json()
        found += [entry["seq"] for entry in page["entries"]]
        cursor, pages = page.get("nextCursor", ""), pages + 1
    assert (found, pages) == ([7, 2], 4)
    csv = {"Accept": "text/csv"}
    for query, seqs in (("", ["7", "2"]), ("&limit=1", ["7"]), ("&limit=9", ["7", "2"])):
        text = (await user.client.get(path + query, headers=csv)).text
        assert [line.partition(",")[0] for line in text.splitlines()[1:]] == seqs
    from_3 = (await user.client.get(f"/api/accounts/{number}/entries")).json()["entries"][4]["time"]
    rest = await user.client.get(f"{path}&from={from_3}&limit=9", headers=csv)
    assert [line.partition(",")[0] for line in rest.text.splitlines()[1:]] == ["7"]
