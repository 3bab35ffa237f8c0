"""Old volumes are in an archive: statements and look-ups read on there, and say when they cannot.

The answers of before are compared with those of after. Money never waits for an archive.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from microfin.kafka.producer import Appended
from microfin.ledger.routing import partition_of, shard_of_account
from microfin.postgres import queries
from microfin.postgres.archive_reading import ArchiveUnusable
from microfin.postgres.shards import NEEDED_SCHEMA
from microfin_api.endpoints import statements
from microfin_local.platform import Platform
from support.api_answers import all_pages
from support.api_under_test import PARTITIONS, Api, Ledger, User, running
from support.archived import Archives
from support.cli import microfin
from support.ports import free_port
from support.waiting import until, until_true

NOBODY: Final = "postgresql://microfin_api:none@127.0.0.1:{}/none?sslmode=disable"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ledger]:
    async with Ledger(platform, tmp_path_factory.mktemp("archive")) as ledger:
        yield ledger


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def archives(own: Ledger) -> AsyncIterator[Archives]:
    async with Archives(own) as archives:
        yield archives


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(own: Ledger, archives: Archives) -> AsyncIterator[Api]:
    async with running(own.settings(archives=archives.urls)) as api:
        yield api


class Past:
    """A user with two accounts, and what the API shows of them."""

    def __init__(self, user: User, account: str, other: str) -> None:
        self.user = user
        self.account = account
        self.other = other
        self.operations: list[str] = []

    @classmethod
    async def of(cls, api: Api) -> "Past":
        user = await api.user()
        return cls(user, await user.account(), await user.account())

    async def move(self) -> None:
        """Let three entries come to the account, and one operation that is rejected."""
        client, pair = self.user.client, (self.account, self.other)
        body = {"senderAccountNumber": pair[0], "receiverAccountNumber": pair[1], "amount": "2"}
        answers = [
            await client.post("/api/deposit", json={"accountNumber": pair[0], "amount": "5"}),
            await client.post("/api/transfer", json=body),
            await client.post("/api/withdraw", json={"accountNumber": pair[0], "amount": "1"}),
            await client.post("/api/withdraw", json={"accountNumber": pair[0], "amount": "1000"}),
        ]
        assert [it.status_code for it in answers] == [200, 200, 200, 422]
        self.operations += [it.json()["operationId"] for it in answers]

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.user.client.get(path, headers=headers)

    async def pages(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Return all entries that the pages of a query show."""
        path = f"/api/accounts/{self.account}/entries?{query}"
        return await all_pages(self.user, path, "entries", limit)

    async def listed(self, limit: int, query: str) -> list[dict[str, Any]]:
        """Return all of the user's operations that the pages of the list show."""
        return await all_pages(self.user, f"/api/operations?{query}", "operations", limit)

    async def shown(self) -> dict[str, Any]:
        """Return what the API shows of the account's past, asked in every way."""
        every = await self.pages("", 200)
        moments = sorted({it["time"] for it in every})
        shown: dict[str, Any] = {f"pages of {n}": await self.pages("", n) for n in (1, 2, 3, 200)}
        for moment in moments:
            for query in (f"from={moment}", f"to={moment}", f"from={moments[1]}&to={moment}"):
                shown[query] = await self.pages(query, 2)
            path = f"/api/accounts/{self.account}/entries?at={moment}"
            shown[path] = (await self.get(path)).json()
        for kind in ("deposit", "withdraw", "transfer"):
            shown[kind] = await self.pages(f"kind={kind}", 2)
            shown[f"oldest {kind}"] = await self.pages(f"order=oldest&kind={kind}", 2)
            assert shown[f"oldest {kind}"] == shown[kind][::-1]
        for first, last in pairwise(moments):
            query = f"from={first}&to={last}"
            shown[f"oldest {query}"] = await self.pages(f"order=oldest&{query}", 2)
            assert shown[f"oldest {query}"] == (await self.pages(query, 2))[::-1]
            path = f"/api/accounts/{self.account}/entries?totals&{query}"
            shown[path] = (await self.get(path)).json()["totals"]
        for limit in (1, 2, 3, 200):
            assert await self.pages("order=oldest", limit) == every[::-1]
        path = f"/api/accounts/{self.account}/entries"
        shown["csv"] = (await self.get(path, Accept="text/csv")).text
        before = await self.get(f"{path}?at=2000-01-01T00:00:00Z")
        shown["before all"] = (before.status_code, before.json())
        for query in ("", "&order=oldest", f"&account={self.account}", "&status=rejected"):
            for limit in (1, 3, 200):
                shown[f"list {limit}{query}"] = await self.listed(limit, query)
        for operation in self.operations:
            answer = await self.get(f"/api/operations/{operation}")
            shown[operation] = (answer.status_code, answer.json())
        return shown


async def three_volumes(api: Api, archives: Archives) -> tuple[Past, dict[str, Any]]:
    """Return a past that spreads over two archived volumes and the ledger, and what was shown."""
    past = await Past.of(api)
    for _ in range(2):
        await past.move()
        await archives.turn()
    await past.move()
    shown = await past.shown()
    await archives.archive()
    return past, shown


async def test_what_is_archived_is_shown_as_before(reader: Api, archives: Archives) -> None:
    past, shown = await three_volumes(reader, archives)
    assert len(shown["pages of 1"]) == 9
    assert await past.shown() == shown


async def test_what_all_is_archived_is_shown_as_before(reader: Api, archives: Archives) -> None:
    past = await Past.of(reader)
    await past.move()
    shown = await past.shown()
    await archives.turn_and_archive()
    assert await past.shown() == shown
    first = await past.get("/api/operations?limit=3")  # no empty page, because all is elsewhere
    assert len(first.json()["operations"]) == 3
    await past.move()
    assert len(await past.pages("", 4)) == 6


async def test_nothing_comes_twice_while_a_volume_is_in_both(
    reader: Api, archives: Archives
) -> None:
    past = await Past.of(reader)
    await past.move()
    volume = await archives.turn()
    await past.move()
    shown = await past.shown()
    await archives.copy(volume)
    assert await past.shown() == shown
    await archives.archive()
    assert await past.shown() == shown


async def test_pages_go_on_while_a_volume_is_archived_between_them(
    reader: Api, archives: Archives
) -> None:
    past = await Past.of(reader)
    entries = 0
    for _ in range(2):
        await past.move()
        entries += 3
        await archives.turn()
        for query in ("", "from=2020-01-01T00:00:00Z", "kind=deposit"):
            path = f"/api/accounts/{past.account}/entries?limit=1&{query}"
            first = (await past.get(path)).json()
            if query == "kind=deposit":
                await archives.archive()
            seen = first["entries"]
            cursor = first.get("nextCursor")
            while cursor:
                page = (await past.get(f"{path}&cursor={cursor}")).json()
                seen += page["entries"]
                cursor = page.get("nextCursor")
            wanted = entries if query != "kind=deposit" else entries // 3
            assert len({it["seq"] for it in seen}) == len(seen) == wanted


async def test_a_volume_that_leaves_while_a_request_waits_for_it_is_not_missed(
    reader: Api, archives: Archives
) -> None:
    """The request has begun, and PostgreSQL has its snapshot, when the volume leaves."""
    past = await Past.of(reader)
    await past.move()
    volume = await archives.turn()
    await archives.copy(volume)
    shown = await past.shown()
    moment = shown["pages of 200"][1]["time"]
    entries = f"/api/accounts/{past.account}/entries"
    paths = [
        entries,
        f"{entries}?from=2020-01-01T00:00:00Z",
        f"{entries}?to=2100-01-01T00:00:00Z",
        f"{entries}?kind=deposit",
        f"{entries}?at={moment}",
        *(f"/api/operations/{operation}" for operation in past.operations),
    ]
    before = [(await past.get(path)).json() for path in paths]
    leaving = archives.live[0].transaction()
    await leaving.start()
    await archives.leave(volume)
    asked = [asyncio.create_task(past.get(path)) for path in paths]
    await until_waiting(archives, len(paths))
    await leaving.commit()
    after = await asyncio.gather(*asked)
    assert [(it.status_code, it.json()) for it in after] == [(200, it) for it in before]


async def until_waiting(archives: Archives, requests: int) -> None:
    """Wait until that many queries wait for the tables' locks."""

    async def waiting() -> bool:
        found = await archives.archives[0].fetchval(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
            " WHERE NOT granted AND datname = $1",
            archives.ledger.databases[0],
        )
        return bool(found >= requests)

    await until("the requests wait for a lock", waiting)


async def test_a_strangers_operation_stays_unknown(reader: Api, archives: Archives) -> None:
    past = await Past.of(reader)
    await past.move()
    await archives.turn_and_archive()
    stranger = await reader.user()
    for user, operation in ((stranger, past.operations[0]), (past.user, "0" * 32)):
        answer = await user.client.get(f"/api/operations/{operation}")
        assert (answer.status_code, answer.json()["code"]) == (404, "operation_not_found")
    entries = await stranger.client.get(f"/api/accounts/{past.account}/entries")
    assert (entries.status_code, entries.json()["code"]) == (404, "account_not_found")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Archives]:
    async with (
        Ledger(platform, tmp_path_factory.mktemp("two"), shards=2) as ledger,
        Archives(ledger) as archives,
    ):
        yield archives


async def accounts_on_each(user: User) -> list[str]:
    """Open an account on each shard, and return them in the shards' order."""
    found: dict[int, str] = {}
    while len(found) < 2:
        number = await user.account()
        found.setdefault(shard_of_account(number, 2), number)
    return [found[0], found[1]]


@pytest.mark.parametrize("first", [0, 1])
async def test_legs_in_the_ledger_and_in_archives_add_up(two: Archives, first: int) -> None:
    """A transfer's legs are on two shards, of which first one has archived its leg, then both."""
    async with running(two.ledger.settings(archives=two.urls)) as api:
        user = await api.user()
        numbers = await accounts_on_each(user)
        await user.deposit(numbers[0], "5")
        await user.deposit(numbers[1], "5")
        shown = {}
        for sender, receiver in (numbers, reversed(numbers)):
            body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": "2"}
            settled = await user.client.post("/api/transfer", json=body)
            path = f"/api/operations/{settled.json()['operationId']}"
            shown[path] = (await user.client.get(path)).json()
        assert {it["status"] for it in shown.values()} == {"settled"}
        for shard in (first, 1 - first):
            await two.turn_and_archive(shard)
            for path, before in shown.items():
                answer = await user.client.get(path)
                assert (answer.status_code, answer.json()) == (200, before), (shard, path)


async def test_archives_of_one_anothers_shards_are_refused(two: Archives) -> None:
    async with running(two.ledger.settings(archives=two.urls)) as api:
        user = await api.user()
        numbers = await accounts_on_each(user)
        for number in numbers:
            await user.deposit(number, "5")
        for shard in range(2):
            await two.turn_and_archive(shard)
    swapped = " ".join(reversed(two.urls.split()))
    async with (
        running(two.ledger.settings(archives=swapped)) as api,
        api.client(Authorization=f"Bearer {user.session_id}") as client,
    ):
        for number in numbers:
            assert_unusable(await client.get(f"/api/accounts/{number}/entries"))


def test_each_shard_needs_its_archive(own: Ledger, archives: Archives) -> None:
    urls = f"{archives.urls} {archives.urls}"
    with pytest.raises(ValueError, match="MICROFIN_ARCHIVES has 2 URLs, and there are 1 shards"):
        Api(own.settings(archives=urls))


def assert_unusable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "archive_unusable"), answer.text
    assert "Retry-After" not in answer.headers


def assert_away(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "archive_unavailable"), answer.text
    assert answer.headers["Retry-After"] == "1"


@asynccontextmanager
async def asking(past: Past, ledger: Ledger, archives: str, **others: Any) -> AsyncIterator[Past]:
    """Let the same user ask an API with other settings for the archives."""
    async with (
        running(ledger.settings(archives=archives, **others)) as api,
        api.client(Authorization=f"Bearer {past.user.session_id}") as client,
    ):
        user = User(client, {"userId": "", "email": "", "sessionId": past.user.session_id})
        asked = Past(user, past.account, past.other)
        asked.operations += past.operations
        yield asked


async def last_live_cursor(past: Past) -> str:
    """Return where the list goes on behind the last operation that is not archived."""
    page = (await past.get(f"/api/operations?account={past.account}")).json()
    cursor: str = page["nextCursor"]
    return cursor


async def assert_only_the_old_is_missing(
    past: Past, refused: Callable[[httpx.Response], None], fault: str
) -> None:
    """What needs the archive is refused, all else goes on, and the process says why."""
    entries = f"/api/accounts/{past.account}/entries"
    for path in (
        entries,
        f"{entries}?limit=4",
        f"{entries}?cursor=2",
        f"{entries}?kind=deposit",
        f"{entries}?from=2020-01-01T00:00:00Z",
        f"{entries}?to=2020-01-01T00:00:00Z",
        f"{entries}?at=2020-01-01T00:00:00Z",
        f"/api/operations/{past.operations[0]}",
        f"/api/operations/{'0' * 32}",
        "/api/operations?order=oldest",
        f"/api/operations?account={past.account}&cursor={await last_live_cursor(past)}",
    ):
        refused(await past.get(path))
        if "entries" in path and "at=" not in path:
            refused(await past.get(path, Accept="text/csv"))
    now = (await past.get(f"{entries}?limit=1")).json()["entries"][0]["time"]
    live = past.operations[4:]
    assert len(live) == 4
    for path, status in (
        (f"{entries}?limit=3", 200),
        (f"{entries}?limit=1&kind=deposit", 200),
        (f"{entries}?at={now}", 200),
        *((f"/api/operations/{operation}", 200) for operation in live),
        (f"/api/accounts/{past.account}", 200),
        ("/api/accounts", 200),
        ("/api/operations", 200),
        (f"/api/operations?account={past.account}&limit=4", 200),
        (f"/api/operations?order=oldest&from={now}", 200),
    ):
        answer = await past.get(path)
        assert answer.status_code == status, (path, answer.text)
    for query in ("", f"?account={past.account}"):
        listed = (await past.get(f"/api/operations{query}")).json()["operations"]
        assert [it["operationId"] for it in listed] == live[::-1]
    later = await past.user.account()  # opened after all that is archived
    opened = await past.get(f"/api/operations?order=oldest&account={later}")
    assert [it["kind"] for it in opened.json()["operations"]] == ["open"], opened.text
    page = (await past.get(f"{entries}?limit=3")).json()
    assert page["nextCursor"] == str(page["entries"][-1]["seq"])
    ready = await past.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert any(fault in it for it in ready.json()["degraded"]), ready.text
    assert 'microfin_api_archive_readable{shard="0"} 0.0' in (await past.get("/metrics")).text


async def half_archived(api: Api, archives: Archives) -> Past:
    """Return a past of which the first half is archived."""
    past = await Past.of(api)
    await past.move()
    await archives.turn_and_archive()
    await past.move()
    return past


async def test_without_an_archive_old_entries_are_not_left_out(
    reader: Api, own: Ledger, archives: Archives
) -> None:
    past = await half_archived(reader, archives)
    async with asking(past, own, "") as asked:
        await assert_only_the_old_is_missing(asked, assert_unusable, "MICROFIN_ARCHIVES is not set")
        await asked.move()


async def test_an_archive_that_is_away_is_no_obstacle(
    reader: Api, own: Ledger, archives: Archives
) -> None:
    past = await half_archived(reader, archives)
    async with asking(past, own, NOBODY.format(free_port())) as asked:
        await assert_only_the_old_is_missing(asked, assert_away, "does not answer")
        await asked.move()


async def test_an_archive_that_is_away_is_said_before_anybody_asks(own: Ledger) -> None:
    async with (
        running(own.settings(archives=NOBODY.format(free_port()))) as api,
        api.client() as client,
    ):

        async def said() -> bool:
            ready = await client.get("/readyz")
            assert ready.status_code == 200
            return any("archive of shard 0" in it for it in ready.json().get("degraded", []))

        await until("the process says that the archive is away", said)


async def test_an_archive_that_hangs_is_no_obstacle(
    reader: Api, own: Ledger, archives: Archives
) -> None:
    past = await half_archived(reader, archives)
    async with silent_server() as port:
        url = NOBODY.format(port)
        async with asking(past, own, url, database_timeout=0.5) as asked:
            await assert_only_the_old_is_missing(asked, assert_away, "does not answer")


async def test_who_waits_for_an_archive_keeps_nobody_waiting(
    reader: Api, own: Ledger, archives: Archives
) -> None:
    """Readers of a silent archive hold neither connections nor requests that others need."""
    past = await half_archived(reader, archives)
    entries = f"/api/accounts/{past.account}/entries"
    async with silent_server() as port:
        url = NOBODY.format(port)
        settings = {"database_connections": 1, "request_limit": 60, "database_timeout": 3}
        async with asking(past, own, url, **settings) as asked:
            waiting = [asyncio.create_task(asked.get(entries)) for _ in range(50)]
            async with asyncio.timeout(5):  # those who wait do so for 6 seconds
                await until_true(lambda: sum(it.done() for it in waiting) >= 50 - 16)
                for it in waiting:
                    if it.done():
                        assert_away(it.result())
                await asked.move()
                assert (await asked.get(f"{entries}?limit=3")).status_code == 200
                assert (await asked.get("/readyz")).status_code == 200
            for it in waiting:
                assert_away(await it)


async def test_an_archive_that_is_slow_is_read(
    reader: Api, own: Ledger, archives: Archives
) -> None:
    past = await half_archived(reader, archives)
    url = own.platform.postgres_pooled(0, "microfin_api", archives.databases[0])
    port = urlsplit(url).port
    assert port is not None
    path = f"/api/accounts/{past.account}/entries"
    moment = (await past.get(f"{path}?limit=1")).json()["entries"][0]["time"]
    path += f"?from=2020-01-01T00:00:00Z&to={moment}"
    expected = (await past.get(path)).json()
    async with (
        slow_way_to(port, seconds=0.3) as slow,
        asking(past, own, url.replace(f":{port}/", f":{slow}/")) as asked,
    ):
        shown = await asyncio.gather(*(asked.get(path) for _ in range(6)))
        assert [it.json() for it in shown] == [expected] * 6


@asynccontextmanager
async def slow_way_to(port: int, seconds: float) -> AsyncIterator[int]:
    """Pass bytes on to a port, all later by half of `seconds` in each direction."""
    ways: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65_536):
            await asyncio.sleep(seconds / 2)
            writer.write(piece)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        ways.add(asyncio.create_task(carry(reader, there[1])))
        ways.add(asyncio.create_task(carry(there[0], writer)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for way in ways:
            way.cancel()


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """Accept connections, and never answer."""
    held: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in held:
            writer.close()


async def in_the_archive(archives: Archives, statement: str) -> None:
    await archives.archives[0].execute(statement)


BROKEN: Final[dict[str, tuple[str, str, str]]] = {
    "that lacks a volume": (
        (
            "CREATE TABLE kept AS SELECT max(volume) AS it FROM volumes;"
            "DELETE FROM volumes USING kept WHERE volume = it"
        ),
        "INSERT INTO volumes (volume) SELECT it FROM kept; DROP TABLE kept",
        "lacks volume",
    ),
    "of another ledger": (
        "CREATE TABLE kept AS TABLE archive; UPDATE archive SET shard_id = gen_random_uuid()",
        "UPDATE archive SET shard_id = (SELECT shard_id FROM kept); DROP TABLE kept",
        "of another ledger",
    ),
    "of an older schema": (
        "UPDATE alembic_version SET version_num = '0001'",
        f"UPDATE alembic_version SET version_num = '{NEEDED_SCHEMA}'",  # noqa: S608 - it is ours
        "has schema 0001",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_an_archive_is_not_believed(
    reader: Api, own: Ledger, archives: Archives, what: str
) -> None:
    breaking, undoing, fault = BROKEN[what]
    past = await half_archived(reader, archives)
    await in_the_archive(archives, breaking)
    try:
        async with asking(past, own, archives.urls) as asked:
            await assert_only_the_old_is_missing(asked, assert_unusable, fault)
    finally:
        await in_the_archive(archives, undoing)


async def test_a_shard_is_no_archive(reader: Api, own: Ledger, archives: Archives) -> None:
    past = await half_archived(reader, archives)
    async with asking(past, own, own.environment("api")["MICROFIN_DATABASES"]) as asked:
        await assert_only_the_old_is_missing(asked, assert_unusable, "is no archive")


async def test_an_archive_that_is_back_is_read_again(
    reader: Api, own: Ledger, archives: Archives
) -> None:
    past = await half_archived(reader, archives)
    entries = f"/api/accounts/{past.account}/entries"
    await in_the_archive(archives, BROKEN["that lacks a volume"][0])
    async with asking(past, own, archives.urls) as asked:
        assert_unusable(await asked.get(entries))
        await in_the_archive(archives, BROKEN["that lacks a volume"][1])
        assert len((await asked.get(entries)).json()["entries"]) == 6
        assert "degraded" not in (await asked.get("/readyz")).json()
        assert 'archive_readable{shard="0"} 1.0' in (await asked.get("/metrics")).text


async def test_an_operation_that_is_under_way_needs_no_archive(
    reader: Api, own: Ledger, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who polls after a 202 asks for what no archive can have."""
    monkeypatch.setattr(queries, "_SKEW", 0)  # it was archived just now
    past = await half_archived(reader, archives)
    undecided, user = "1" * 32, past.user.id
    tokens = reader.services.at_tokens
    at = tokens.make(undecided, user, b"", Appended(partition=0, offset=10**9, time=0))
    decided = tokens.make(undecided, user, b"", Appended(partition=0, offset=0, time=0))
    sender = await account_on(past.user, partition=0)
    receiver = await account_on(past.user, partition=1)
    await past.user.deposit(sender, "5")
    await own.stop_workers()
    async with asking(past, own, NOBODY.format(free_port())) as asked:
        answer = await asked.get(f"/api/operations/{undecided}?at={at}")
        assert (answer.status_code, answer.json()["status"]) == (200, "accepted")
        assert_away(await asked.get(f"/api/operations/{undecided}?at={decided}"))
        await own.start_workers()
        await own.stop_worker(1)
        body = {"senderAccountNumber": sender, "receiverAccountNumber": receiver, "amount": "2"}
        prefer = {"Prefer": "respond-async"}
        sent = await asked.user.client.post("/api/transfer", json=body, headers=prefer)
        assert sent.status_code == 202, sent.text

        async def debited() -> bool:
            shown = await asked.get(sent.headers["Location"])
            assert shown.status_code == 200, shown.text
            return bool(shown.json()["status"] == "in_transit")

        await until("the sender is debited", debited)
    await own.stop_workers()
    await own.start_workers()


async def account_on(user: User, partition: int) -> str:
    while True:
        number = await user.account()
        if partition_of(number, PARTITIONS) == partition:
            return number


async def test_a_statement_that_breaks_off_does_not_look_whole(
    reader: Api, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive fails while a CSV is being sent: the answer has no end."""
    monkeypatch.setattr(statements, "_CSV_PAGE", 1)
    past = await half_archived(reader, archives)
    bodies: list[str] = []
    ended = False

    async def receive() -> Any:
        await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        nonlocal ended
        if message["type"] == "http.response.body":
            bodies.append(message["body"].decode())
            ended = not message.get("more_body")
        if len(bodies) == 3:  # the names of the columns, and two entries of the ledger
            await in_the_archive(archives, BROKEN["that lacks a volume"][0])
            bodies.append("")

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "GET", "path": f"/api/accounts/{past.account}/entries", "query_string": b"",
        "raw_path": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1),
        "server": ("api.test", 80),
        "headers": [
            (b"host", b"api.test"),
            (b"accept", b"text/csv"),
            (b"authorization", f"Bearer {past.user.session_id}".encode()),
        ],
    }  # fmt: skip
    try:
        with pytest.raises(ArchiveUnusable, match="lacks volume"):  # the server then hangs up
            await reader.app(scope, receive, send)
    finally:
        await in_the_archive(archives, BROKEN["that lacks a volume"][1])
    assert len([it for it in bodies if it]) == 4  # the third entry of the ledger, and no more
    assert not ended


async def test_the_command_line_reads_archives_too(
    reader: Api, own: Ledger, archives: Archives
) -> None:
    past = await half_archived(reader, archives)
    operation = past.operations[0]
    environment = {**own.environment("operator"), "MICROFIN_ARCHIVES": archives.urls}
    shown = await microfin(environment, "account", "show", past.account, "--json")
    assert [it["seq"] for it in shown.json()["entries"]] == [6, 5, 4, 3, 2, 1]
    shown = await microfin(environment, "operation", "show", operation, "--json")
    assert (shown.json()["status"], len(shown.json()["legs"])) == ("settled", 1)
    del environment["MICROFIN_ARCHIVES"]
    for command in (("account", "show", past.account), ("operation", "show", operation)):
        ran = await microfin(environment, *command)
        assert (ran.code, ran.output) == (2, "")
        assert "MICROFIN_ARCHIVES is not set" in ran.errors
