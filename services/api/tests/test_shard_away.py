"""One shard away: the others settle, and what only it knows is never guessed."""

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
import pytest_asyncio

from microfin.ledger.routing import shard_of_account
from microfin_local.platform import Platform
from support.api_under_test import Api, Ledger, User, running
from support.waiting import until_true

SHARDS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two_shards(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ledger]:
    async with Ledger(platform, tmp_path_factory.mktemp("away"), shards=SHARDS) as ledger:
        yield ledger


class AwayPool:
    """A pool that refuses, or never answers."""

    def __init__(self, *, hangs: bool) -> None:
        self._hangs = hangs

    def acquire(self, **_: Any) -> "AwayPool":
        return self

    async def __aenter__(self) -> None:
        if self._hangs:
            await asyncio.get_running_loop().create_future()
        raise ConnectionRefusedError("planted")

    async def __aexit__(self, *_: object) -> None:
        return None

    def __await__(self) -> Generator[Any]:
        return self.__aenter__().__await__()

    def terminate(self) -> None:
        return None


async def take_away(
    api: Api, shard: int, monkeypatch: pytest.MonkeyPatch, *, hangs: bool = False
) -> None:
    """Let the API find one shard away: its lease, and all its queries there."""
    lease = api.services.leases._shards[shard]

    async def refuse(_: float) -> None:
        raise ConnectionRefusedError("planted")

    monkeypatch.setattr(lease, "_renewal", refuse)
    away: Any = AwayPool(hangs=hangs)
    api.services.pools[shard].terminate()
    api.services.pools[shard] = away  # the list is shared by all who look something up
    if shard == 0:
        monkeypatch.setattr(api.services.sessions, "_pool", away)
        monkeypatch.setattr(api.services.users, "_pool", away)
    await until_true(lambda: lease.valid() is None)


async def accounts_on_each(user: User) -> list[str]:
    """Open an account on each shard, and return them in the shards' order."""
    found: dict[int, str] = {}
    while len(found) < SHARDS:
        number = await user.account()
        found.setdefault(shard_of_account(number, SHARDS), number)
    return [found[shard] for shard in range(SHARDS)]


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("away", range(SHARDS))
async def test_the_other_shard_goes_on(
    two_shards: Ledger, monkeypatch: pytest.MonkeyPatch, away: int, hangs: bool
) -> None:
    async with running(two_shards.settings()) as api:
        user = await api.user()
        numbers = await accounts_on_each(user)
        there, gone = numbers[1 - away], numbers[away]
        before = [await user.deposit(number, "5") for number in (there, gone)]
        await user.client.get("/api/me")  # the session is cached
        await take_away(api, away, monkeypatch, hangs=hangs)

        ready = await user.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert [f"shard {away}" in text for text in ready.json()["degraded"]] == [True]
        assert "missing" not in ready.json()
        metrics = (await user.client.get("/metrics")).text
        for shard in range(SHARDS):
            valid = float(shard != away)
            assert f'microfin_api_lease_valid{{shard="{shard}"}} {valid}' in metrics

        # The other shard's operations are shown.
        settled = await user.deposit(there, "1")
        assert settled["balance"] == "6.00"
        for operation in (settled, before[0]):
            shown = await user.client.get(f"/api/operations/{operation['operationId']}")
            assert (shown.status_code, shown.json()["status"]) == (200, "settled")
        assert await user.balance(there) == "6.00"
        statement = await user.client.get(f"/api/accounts/{there}/entries")
        assert len(statement.json()["entries"]) == 2

        # What only the missing one can know is not.
        body = {"accountNumber": gone, "amount": "1"}
        refused = await user.client.post("/api/deposit", json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        monkeypatch.setattr("microfin_api.app.LONGEST_SECONDS", 2.0)  # hung is hung
        for path in (
            f"/api/operations/{before[1]['operationId']}",
            f"/api/operations/{'0' * 32}",
            "/api/accounts",
            f"/api/accounts/{gone}",
            f"/api/accounts/{gone}/entries",
        ):
            answer = await user.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path


async def test_a_transfer_whose_end_only_the_missing_shard_knows_is_not_shown(
    two_shards: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(two_shards.settings()) as api:
        user = await api.user()
        sender, receiver = await accounts_on_each(user)
        await user.deposit(sender, "5")
        body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": "2"}
        settled = await user.client.post("/api/transfer", json=body)
        await take_away(api, 1, monkeypatch)  # the credit's outcome is there
        shown = await user.client.get(f"/api/operations/{settled.json()['operationId']}")
        assert (shown.status_code, shown.json()["code"]) == (503, "unavailable")


async def test_without_any_shard_nothing_is_ready(
    two_shards: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(two_shards.settings()) as api:
        for shard in range(SHARDS):
            await take_away(api, shard, monkeypatch)
        async with api.client() as client:
            ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        missing = " ".join(ready.json()["missing"])
        assert "shard 0" in missing
        assert "shard 1" in missing


async def test_a_capture_is_looked_up_where_it_pays(two_shards: Ledger) -> None:
    """Its request does not name the receiver, which the hold knows: so all shards are asked."""
    settings = two_shards.settings(
        redis="redis://127.0.0.1:1", look_up_after=0.05, answer_within=4.0
    )
    async with running(two_shards.settings()) as signing, running(settings) as api:
        user = await signing.user()
        account = await user.account(balance="10")
        other = await user.account()
        while shard_of_account(other, SHARDS) == shard_of_account(account, SHARDS):
            other = await user.account()
        body = {"accountNumber": account, "amount": "5", "receiverAccountNumber": other}
        made = (await user.client.post("/api/holds", json=body)).json()
        async with api.client(Authorization=f"Bearer {user.session_id}") as client:
            captured = await client.post(f"/api/holds/{made['holdId']}/capture")
        assert captured.status_code == 200, captured.text
        assert await user.balance(other) == "5.00"


async def test_an_outcome_is_looked_up_where_it_is(
    two_shards: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account's number says its shard only once it is open, so all are asked for it."""
    settings = two_shards.settings(redis="redis://127.0.0.1:1", look_up_after=0.05)
    async with running(two_shards.settings()) as signing, running(settings) as api:
        user = await signing.user()
        await take_away(api, 1, monkeypatch, hangs=True)
        async with api.client(Authorization=f"Bearer {user.session_id}") as client:
            while True:  # until one falls to the shard that is there
                opened = await client.post("/api/accounts", json={})
                if opened.status_code != 503:
                    break
                assert opened.json()["code"] == "unavailable"
        assert opened.status_code == 201, opened.text
