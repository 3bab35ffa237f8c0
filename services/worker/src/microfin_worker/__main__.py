"""`python -m microfin_worker`: run the worker of one partition until SIGTERM or SIGINT."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import structlog
import uvloop
from pydantic import ValidationError

from microfin.ledger.routing import shard_of_partition
from microfin.postgres.connections import connect_pool
from microfin.postgres.held_connection import HeldConnection
from microfin.postgres.shards import ShardPlace
from microfin.process import garbage_collection
from microfin.process.clock import SystemClock
from microfin.process.logs import configure_logs
from microfin.process.settings import WorkerSettings
from microfin.redis.account_cache import AccountCache, account_seal
from microfin.redis.guarded import GuardedRedis
from microfin.redis.replies import RedisReplies, reply_seal
from microfin_worker.health import health_server
from microfin_worker.kafka_log import KafkaLog
from microfin_worker.limits import Limits
from microfin_worker.partition import partition_from
from microfin_worker.ports import Ports
from microfin_worker.postgres_store import PostgresStore
from microfin_worker.volumes import VolumeKeeper
from microfin_worker.worker import Worker

logger = structlog.get_logger(__name__)

# Seconds. A worker that was cut off works again soon after the end of the attempt under way.
_CONNECT_WITHIN: Final = 3.0


async def work(settings: WorkerSettings, partition: int) -> None:
    """Run the worker of `partition` until it is asked to stop."""
    urls = settings.database_urls
    shard = shard_of_partition(partition, len(urls))
    pool = await connect_pool(
        urls[shard],
        settings,
        place=ShardPlace(shard, len(urls)),
        connect_within=min(_CONNECT_WITHIN, settings.database_timeout),
    )
    redis = GuardedRedis(settings)
    log = KafkaLog(settings, partition)
    store = PostgresStore(HeldConnection(pool), partition, len(urls))
    ports = Ports(
        log=log,
        store=store,
        replies=RedisReplies(redis, reply_seal(settings.cache_secret)),
        cache=_cache(settings, redis),
        clock=SystemClock(),
        required=(log.silence, store.silence),
        useful=(redis.silence,),
    )
    limits = Limits(
        batch=settings.batch_limit,
        accounts=settings.account_memory,
        outbox=settings.outbox_limit,
        interval=settings.batch_interval,
    )
    worker = Worker(partition, len(urls), ports, limits)
    stop_on_signals(worker, log.end_fetch)
    server = health_server(
        settings,
        worker.status,
        worker.measure,
        lambda: log.topic_partitions,
        lambda: [redis.fault] if redis.fault else [],
    )
    serving = asyncio.create_task(server.serve())
    keeping = asyncio.create_task(VolumeKeeper(pool, store.written).run())

    async def connect() -> None:
        await asyncio.gather(redis.start(), log.start())
        garbage_collection.tune()

    logger.info("starting", partition=partition, shard=shard)
    if not settings.cache_secret:
        logger.warning("MICROFIN_CACHE_SECRET is not set: answers are looked up in PostgreSQL")
    try:
        await worker.run(connected=connect())
    finally:
        keeping.cancel()
        server.end()
        await asyncio.gather(serving, log.stop(), redis.close(), return_exceptions=True)
        pool.terminate()
        logger.info("ended", partition=partition)


def _cache(settings: WorkerSettings, redis: GuardedRedis) -> AccountCache | None:
    """Return the cache of accounts, None where nobody reads it."""
    if settings.cache_accounts == "never":
        return None
    return AccountCache(redis, account_seal(settings.cache_secret))


def stop_on_signals(worker: Worker, end_fetch: Callable[[], None]) -> None:
    """End the worker after its batch on SIGTERM or SIGINT; a second signal ends it at once.

    A worker without a batch waits in a fetch, which `end_fetch` ends.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def stop() -> None:
        if worker.stopping and task is not None:
            task.cancel()
        worker.stop()
        end_fetch()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def main() -> int:
    """Read the settings and run; return 2 if they are not valid."""
    try:
        settings = WorkerSettings()
        partition = partition_from(settings.partition, socket.gethostname())
        _ = settings.database_urls
    except (ValidationError, ValueError) as error:
        print(f"microfin worker: {error}", file=sys.stderr)  # noqa: T201 - logs are not configured yet
        return 2
    configure_logs(settings, process=f"worker-{partition}")
    try:
        uvloop.run(work(settings, partition))
    except asyncio.CancelledError:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
