"""PostgreSQL's log holds no address, no hash and no token, even if it logs everything.

Every statement of the API is logged here with its duration, some fail, and one is cancelled.
"""

import asyncio
import sys
from hashlib import blake2b
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from microfin_local.credentials import SUPERUSER
from microfin_local.platform import Platform
from support.api_under_test import PASSWORD, Ledger, running

NAME = "Wilhelmina Quagmire"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def logged(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A ledger of which PostgreSQL logs every statement."""
    async with Ledger(platform, tmp_path_factory.mktemp("logged")) as ledger:
        await ledger.stop_workers()
        superuser = await _superuser(ledger)
        for role in ("microfin", "microfin_api"):
            await superuser.execute(
                f"ALTER ROLE {role} IN DATABASE {ledger.name}_0 SET log_min_duration_statement = 0"
            )
        await superuser.execute(
            f"ALTER ROLE microfin_api IN DATABASE {ledger.name}_0 SET statement_timeout = '300ms'"
        )
        await superuser.close()
        return ledger


async def _superuser(ledger: Ledger) -> asyncpg.Connection:
    url = ledger.platform.postgres_direct(0, SUPERUSER, ledger.databases[0])
    return await asyncpg.connect(url, ssl=False)


async def test_people_are_not_in_it(logged: Ledger) -> None:
    email = f"wilhelmina.{uuid4().hex}@example.com"
    tokens = []
    async with running(logged.settings()) as api, api.client() as client:
        credentials = {"email": email, "password": PASSWORD}
        person = {"name": NAME, **credentials}
        for path, body in (("signup", person), ("signup", person), ("signin", credentials)):
            answer = await client.post(f"/api/{path}", json=body)
            tokens.append(answer.json()["sessionId"])
        for path in ("me", "accounts"):
            await client.get(f"/api/{path}")
        await api.services.redis.close()  # sessions come from PostgreSQL
        await client.get("/api/me")
        await _cancel_a_look_up(logged, lambda: client.post("/api/signin", json=credentials))
        await client.post("/api/signout", json={})
        tokens.append(uuid4().hex)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            async with api.services.pools[0].acquire() as connection, connection.transaction():
                await connection.execute(
                    "INSERT INTO sessions (token_hash, user_id, epoch, expires_at)"
                    " VALUES ($1, $2, 0, clock_timestamp())",
                    *(blake2b(tokens[-1].encode(), digest_size=32).digest(), uuid4()),
                )
    async with running(logged.settings(argon2_time=2)) as api, api.client() as client:
        answer = await client.post("/api/signin", json=credentials)  # stores another hash
        tokens.append(answer.json()["sessionId"])
    for address in (email, f"other.{email}"):
        await _create_by_hand(logged, address)
    owner = await asyncpg.connect(
        logged.platform.postgres_direct(0, database=logged.databases[0]), ssl=False
    )
    hashes = [row[0] for row in await owner.fetch("SELECT password_hash FROM users")]
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute(
            "INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, $3, $4)",
            *(UUID(int=1), email, NAME, hashes[0]),
        )
    await owner.close()

    log = _log(logged)
    assert f"microfin_api@{logged.databases[0]}" in log
    statements = ("INSERT INTO users", "SELECT open_session", "FROM users WHERE", "canceling")
    for statement in statements:
        assert statement in log, statement
    digests = [blake2b(token.encode(), digest_size=32).hexdigest() for token in tokens]
    assert len(tokens) == 5
    assert len(hashes) == 2
    for secret in (email, NAME, PASSWORD, "$argon2", *hashes, *tokens, *digests):
        assert not _lines(log, secret), secret


async def _cancel_a_look_up(ledger: Ledger, ask: object) -> None:
    """Let a sign-in wait for a lock until PostgreSQL cancels its statement."""
    superuser = await _superuser(ledger)
    async with superuser.transaction():
        await superuser.execute("LOCK TABLE users")
        answer = await ask()  # type: ignore[operator]
        assert answer.status_code == 503
    await superuser.close()


async def _create_by_hand(ledger: Ledger, email: str) -> None:
    environment = ledger.platform.environment("operator", ledger.databases[0], ledger.name)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "microfin_tools", "user", "create", email, "--name", NAME),
        "--password-stdin",
        env={**environment, "MICROFIN_ARGON2_MEMORY": "8", "MICROFIN_ARGON2_TIME": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.communicate(f"{PASSWORD}\n".encode())


async def test_no_password_of_a_role_is_in_it(logged: Ledger) -> None:
    """Also where a statement fails that sets one."""
    superuser = await _superuser(logged)
    password = uuid4().hex
    with pytest.raises(asyncpg.DuplicateObjectError):
        await superuser.execute(f"CREATE ROLE microfin_api LOGIN PASSWORD '{password}'")
    await superuser.close()
    log = _log(logged)
    assert _lines(log, 'role "microfin_api" already exists')
    assert not _lines(log, password)


def _log(ledger: Ledger) -> str:
    path: Path = ledger.platform.configuration.logs / "postgres-0.log"
    return path.read_text(encoding="utf-8", errors="replace")


def _lines(log: str, text: str) -> list[str]:
    return [line for line in log.splitlines() if text in line]
