"""The services of one API process, started and stopped in order."""

import asyncio
import contextlib
import secrets
from functools import partial

import structlog

from microfin.kafka.producer import CommandProducer
from microfin.postgres.archive_reading import Archive, archives_of
from microfin.postgres.connections import connect_shards
from microfin.process.settings import ApiSettings
from microfin.process.ticks import tick
from microfin.redis.guarded import GuardedRedis
from microfin.redis.replies import reply_seal
from microfin_api import metrics
from microfin_api.account_reads import AccountReads
from microfin_api.commands.account_cap import AccountCap
from microfin_api.commands.at_token import AtTokens
from microfin_api.commands.clock_check import ClockCheck
from microfin_api.commands.lease_thread import LeaseThread
from microfin_api.commands.leases import Leases, ShardLease
from microfin_api.commands.sending_gate import SendingGate
from microfin_api.commands.submission import Submission
from microfin_api.commands.waiting import Waiting
from microfin_api.http.client_address import TrustedProxies
from microfin_api.http.draining import Drain
from microfin_api.people.cross_origin import OriginRule
from microfin_api.people.devices import Devices
from microfin_api.people.passwords import Passwords
from microfin_api.people.sessions import Sessions
from microfin_api.people.sign_in_rate import SignInRate
from microfin_api.people.users import Users

logger = structlog.get_logger(__name__)

_FLUSH_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_CLEANING_SECONDS = 60.0
_LOOKING_SECONDS = 60.0


class Services:
    """Everything that the endpoints use. `instance` names this process until it ends."""

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings
        self.instance = secrets.token_hex(8)
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self.origins = OriginRule(settings.allowed_origins, self.proxies)
        self.at_tokens = AtTokens(settings)
        self.passwords = Passwords(settings)
        self.devices = Devices(settings, self.proxies)
        self.clock = ClockCheck()
        self.redis = GuardedRedis(settings)
        self.sign_in_rate = SignInRate(settings, self.redis)
        self.producer = CommandProducer(settings, f"microfin-api-{self.instance}")
        self.leases = Leases(self.instance, settings)
        self._lease_thread = LeaseThread(self.leases)
        self.gate = SendingGate(self.leases)
        self.archives = archives_of(settings.archive_urls, self.leases.shards, settings)
        self.drain = Drain()
        self._renewing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect to Kafka, PostgreSQL and Redis; /readyz shows those that do not answer yet."""
        settings = self.settings
        if not settings.cache_secret:
            logger.warning("MICROFIN_CACHE_SECRET is not set: answers are looked up in PostgreSQL")
        self.pools = await connect_shards(settings.database_urls, settings)
        self.accounts = AccountReads(self.pools, settings.database_connections)
        self.users = Users(self.pools[0])
        self.account_cap = AccountCap(settings, self.pools, self.leases)
        self.sessions = Sessions(settings, self.pools[0], self.redis)
        self.waiting = Waiting(
            self.instance,
            self.redis,
            self.pools,
            settings.look_up_after,
            reply_seal(settings.cache_secret),
        )
        self.submission = Submission(settings, self.gate, self.producer, self.waiting, self.clock)
        await self.passwords.start()
        self._producing = asyncio.create_task(self.producer.start())
        self._cleaning = asyncio.create_task(self._clean_for_ever())
        for archive in self.archives:
            await archive.start()
        self._looking = asyncio.create_task(self._look_at_archives_for_ever())
        await asyncio.gather(self.redis.start(), self._lease_thread.start())
        self.waiting.start()
        self.sessions.start()
        self._show_leases()
        for shard, archive in enumerate(self.archives):
            metrics.ARCHIVE_READABLE.labels(shard).set_function(partial(_one_if_readable, archive))
        metrics.READY.set_function(lambda: 0 if self.missing() else 1)
        logger.info("started", instance=self.instance)

    async def stop(self) -> None:
        """Let commands under way reach the log, release the leases, and disconnect."""
        self.drain.begun = True
        await self.submission.finish(_FLUSH_SECONDS)
        await self.sign_in_rate.stop(_CLOSE_SECONDS)
        for task in (self._producing, self._cleaning, self._looking):
            task.cancel()
        await self.producer.stop()
        await asyncio.gather(self._lease_thread.stop(), self.waiting.stop(), self.sessions.stop())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.redis.close()
        for pool in (*self.pools, *self.archives):
            pool.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.passwords.close()
        logger.info("stopped", instance=self.instance)

    def missing(self) -> list[str]:
        """Return why this process cannot accept requests; empty when it is ready.

        A lease on one shard suffices: requests for that shard's accounts are served.
        """
        missing = ["this process is stopping"] if self.drain.begun else []
        without_lease = self.leases.faults()
        if len(without_lease) == self.leases.shards:
            missing += without_lease
        if not self.producer.ready:
            missing.append(self.producer.silence.sentence)
        return missing + self.clock.faults()

    def degraded(self) -> list[str]:
        """Return which requests a ready process serves slowly, or not at all, and why."""
        away = self.leases.faults()
        slow = [f"answers are slower: {self.redis.fault}"] if self.redis.fault else []
        nobody = [f"nobody can sign in: {fault}"] if (fault := self.passwords.fault()) else []
        old = [f"old entries cannot be read: {it.fault}" for it in self.archives if it.fault]
        return ([] if len(away) == self.leases.shards else away) + slow + nobody + old

    def _show_leases(self) -> None:
        """Let the metrics show whether each lease is valid, and renew connections after a cut."""
        for shard in range(len(self.pools)):
            lease = self.leases.of_shard(shard)
            lease.on_return = partial(self._renew_connections, shard)
            metrics.LEASE_VALID.labels(shard).set_function(partial(_one_if_valid, lease))

    def _renew_connections(self, shard: int) -> None:
        """Make requests connect anew to a shard that is back: its old connections may be dead, and
        each would cost a request its whole deadline."""
        renewing = asyncio.create_task(self._expire_connections(shard))
        self._renewing.add(renewing)
        renewing.add_done_callback(self._renewing.discard)

    async def _expire_connections(self, shard: int) -> None:
        await self.pools[shard].expire_connections()
        await self.accounts.expire_connections(shard)

    async def _look_at_archives_for_ever(self) -> None:
        """Notice an archive that cannot be read before a client asks for what is in it."""
        while True:
            try:
                for archive, pool in zip(self.archives, self.pools, strict=True):
                    await archive.look(pool)
            except Exception:
                logger.warning("could not look at the archives", exc_info=True)
            await tick(_LOOKING_SECONDS)

    async def _clean_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_CLEANING_SECONDS)
            try:
                await self.sessions.forget_expired()
            except Exception:
                logger.warning("could not delete expired sessions", exc_info=True)


def _one_if_readable(archive: Archive) -> int:
    return 0 if archive.fault else 1


def _one_if_valid(lease: ShardLease) -> int:
    return 1 if lease.lasts else 0
