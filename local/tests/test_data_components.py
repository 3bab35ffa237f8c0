"""The parts that hold and carry data, as the platform starts them."""

from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from redis.asyncio import RedisCluster

from microfin_local.configuration import TOPIC
from microfin_local.platform import Platform
from support.waiting import until


async def _pooled(platform: Platform, role: str = "microfin_worker") -> "asyncpg.Connection":
    url = platform.postgres_pooled(0, role)
    return await asyncpg.connect(url, statement_cache_size=0, timeout=5)


async def _until(what: str, answers: Callable[[], Awaitable[object]]) -> None:
    async def has_answered() -> bool:
        await answers()
        return True

    trouble = (OSError, TimeoutError, asyncpg.PostgresError)
    await until(what, has_answered, seconds=40, not_yet=trouble)


async def test_postgresql_is_durable(platform: Platform) -> None:
    connection = await asyncpg.connect(platform.postgres_direct())
    settings = dict(
        await connection.fetch(
            "SELECT name, setting FROM pg_settings WHERE name = ANY($1)",
            ["fsync", "synchronous_commit", "full_page_writes"],
        )
    )
    await connection.close()
    assert settings == {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


async def test_the_owner_can_limit_the_other_roles(platform: Platform) -> None:
    connection = await asyncpg.connect(platform.postgres_direct())
    for role in ("microfin_worker", "microfin_api", "microfin_auditor"):
        await connection.execute(f"ALTER ROLE {role} SET statement_timeout = '30s'")
        await connection.execute(f"ALTER ROLE {role} RESET statement_timeout")
    await connection.close()


async def test_every_role_reaches_its_database_through_the_pooler(platform: Platform) -> None:
    for role in ("microfin_worker", "microfin_api", "microfin_auditor"):
        connection = await _pooled(platform, role)
        assert await connection.fetchval("SELECT current_user::text") == role
        assert await connection.fetchval("SELECT current_database()::text") == "microfin"
        await connection.close()


async def test_workers_and_api_reach_the_pooler_by_its_socket(platform: Platform) -> None:
    for role in ("worker", "api"):
        url = platform.environment(role)["MICROFIN_DATABASES"]
        assert "@/microfin_0?host=/" in url
        connection = await asyncpg.connect(url, statement_cache_size=0, timeout=5)
        assert await connection.fetchval("SELECT inet_server_addr() IS NULL")
        await connection.close()
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(url.replace("microfin_", "microfin_x", 1), timeout=5)
    assert "@127.0.0.1:" in platform.environment("auditor")["MICROFIN_DATABASES"]


async def test_a_wrong_password_is_refused(platform: Platform) -> None:
    url = platform.postgres_pooled(0, "microfin_worker")
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(url.replace("microfin_worker:", "microfin_worker:x"), timeout=5)


async def test_the_pooler_lends_a_server_for_a_transaction_only(platform: Platform) -> None:
    first, second = await _pooled(platform), await _pooled(platform)
    transaction = first.transaction()
    await transaction.start()
    lent = await first.fetchval("SELECT pg_backend_pid()")
    assert await second.fetchval("SELECT pg_backend_pid()") != lent
    await transaction.rollback()
    async with second.transaction():
        assert await second.fetchval("SELECT pg_backend_pid()") == lent
    await first.close()
    await second.close()


async def test_the_pooler_leaves_the_server_connections_however_many_databases_there_are(
    platform: Platform,
) -> None:
    """Those that nobody uses make room for those to other databases."""
    for number in range(8):
        name = f"one_of_many_{number}"
        await platform.create_database(name)
        url = platform.postgres_pooled(0, "microfin_api", name)
        clients = [await asyncpg.connect(url, statement_cache_size=0, timeout=5) for _ in range(15)]
        for client in clients:
            await client.execute("BEGIN")
        for client in clients:
            await client.execute("ROLLBACK")
            await client.close()
    direct = await asyncpg.connect(platform.postgres_direct())
    await direct.close()


async def test_the_pooler_survives_a_restart_of_postgresql(platform: Platform) -> None:
    pooler = platform.process("pgbouncer").process_id
    restarts = platform.process("postgres-0").restarts

    async def answers() -> None:
        connection = await _pooled(platform)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            connection.terminate()

    for end in (platform.terminate, platform.kill):
        await end("postgres-0")
        restarts += 1
        await until("postgres-0 runs again", partial(_restarted, platform, "postgres-0", restarts))
        await _until("PgBouncer answers", answers)
    assert platform.process("pgbouncer").process_id == pooler


def _restarted(platform: Platform, name: str, times: int) -> bool:
    process = platform.process(name)
    return process.restarts >= times and process.process_id is not None


async def test_the_pooler_knows_a_database_made_later_at_once(platform: Platform) -> None:
    for name in ("made_later", *(f"made_later_{number}" for number in range(5))):
        await platform.create_database(name)
        url = platform.postgres_pooled(0, "microfin_api", name)
        connection = await asyncpg.connect(url, statement_cache_size=0, timeout=5)
        assert await connection.fetchval("SELECT current_database()::text") == name
        await connection.close()
    settings = platform.environment("worker", "made_later", "another.topic")
    assert "/made_later_0" in settings["MICROFIN_DATABASES"]
    assert settings["MICROFIN_TOPIC"] == "another.topic"


async def test_only_an_operator_gets_the_owners_password(platform: Platform) -> None:
    owner = platform.postgres_direct()
    assert platform.environment("operator")["MICROFIN_DATABASES_DIRECT"] == owner
    for role in ("worker", "api", "auditor"):
        assert owner not in platform.environment(role).values()
        assert "MICROFIN_DATABASES_DIRECT" not in platform.environment(role)
    assert len(platform.environment("api")["MICROFIN_SECRET"]) >= 32


async def test_the_commands_topic_keeps_everything_and_has_the_brokers_time(
    platform: Platform,
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=platform.endpoints.kafka)
    await admin.start()
    try:
        topics = await admin.describe_topics([TOPIC])
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
    finally:
        await admin.close()
    assert len(topics[0]["partitions"]) == platform.configuration.workers
    settings = {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert (settings["retention.ms"], settings["retention.bytes"]) == ("-1", "-1")
    assert settings["cleanup.policy"] == "delete"
    assert settings["unclean.leader.election.enable"] == "false"


async def test_the_redis_cluster_serves_every_slot(platform: Platform) -> None:
    client = RedisCluster.from_url(platform.endpoints.redis[0])
    for number in range(50):
        await client.set(f"try:{number}", number, ex=60)
        assert await client.get(f"try:{number}") == str(number).encode()
    await client.aclose()
