"""The product's processes: workers, API processes and the activator of a growth."""

import asyncio
from typing import Any

import asyncpg

from microfin.ledger.routing import shard_of_partition
from microfin.ledger.wire import Command
from microfin.process.clock import SystemClock
from microfin.process.settings import ApiSettings
from microfin.redis.account_cache import AccountCache, account_seal
from microfin.redis.replies import RedisReplies, reply_seal
from microfin_api.commands.clock_check import ClockCheck
from microfin_api.commands.leases import Leases
from microfin_api.commands.sending_gate import SendingGate
from microfin_api.commands.submission import Accepted, Submission
from microfin_api.commands.waiting import Settled, Waiting
from microfin_api.phases import CommandPhases
from microfin_tools.growth import (
    Growth,
    GrowthNotFinished,
    GrowthRefused,
    MarkedLog,
    PostgresRouting,
)
from microfin_worker.limits import Limits
from microfin_worker.ports import Ports
from microfin_worker.postgres_store import PostgresStore
from microfin_worker.worker import Worker
from simulation.broker import SimulatedLog, SimulatedProducer
from simulation.connections import SimulatedPool
from simulation.shared import Shared
from simulation.simulated_redis import SimulatedRedis
from simulation.virtual_loop import Process

HOLD_LOOK = 0.25  # seconds: schedules are short

SECRET = "what workers and API processes seal by"


class Disconnected(Exception):
    """The client's connection to the API broke before an answer came."""


class WorkerProcess:
    """One worker, from its start to its death."""

    def __init__(self, shared: Shared, partition: int, name: str) -> None:
        self.partition = partition
        self.process = Process(shared.loop, name)
        self._shared = shared
        self._worker: Worker | None = None

    def start(self) -> None:
        """Start working."""
        self._shared.history.note(self.process.name, "starts")
        self.process.do(self._begin)

    def stop(self) -> None:
        """Ask it to end after its batch."""
        self._shared.history.note(self.process.name, "is asked to stop")
        if self._worker is not None and self.process.alive:
            self.process.do(self._worker.stop)

    def _begin(self) -> None:
        shared, process = self._shared, self.process
        shard = shard_of_partition(self.partition, len(shared.databases))
        redis: Any = SimulatedRedis(shared.channels)
        ports = Ports(
            log=SimulatedLog(shared.topic, shared.network, process.name, self.partition),
            store=PostgresStore(
                SimulatedPool(shared.databases[shard], process),
                self.partition,
                len(shared.databases),
            ),
            replies=RedisReplies(redis, reply_seal(SECRET)),
            cache=AccountCache(redis, account_seal(SECRET)),
            clock=SystemClock(),
        )
        tuning = shared.plan.tuning
        limits = Limits(tuning.batch, tuning.memory, interval=tuning.interval, hold_look=HOLD_LOOK)
        self._worker = Worker(self.partition, len(shared.databases), ports, limits)
        process.start(self._work(self._worker))

    async def _work(self, worker: Worker) -> None:
        await worker.run()
        self.process.kill()


class ApiProcess:
    """One API process: what is between its HTTP server and the log."""

    def __init__(self, shared: Shared, name: str, settings: ApiSettings) -> None:
        self.process = Process(shared.loop, name)
        self.process.at_death.append(self._break_off)
        self._shared = shared
        self._settings = settings
        self._asked: dict[asyncio.Future[Any], None] = {}
        self._submission: Submission | None = None

    def start(self, instance: str) -> None:
        """Start serving, under a name that no process had before."""
        self._shared.history.note(self.process.name, "starts")
        self.process.start(self._begin(instance))

    async def ask(self, command: Command, *, at_once: bool) -> Settled | Accepted:
        """Send a request and return its answer.

        Raises `Problem` as the API answers it, `Disconnected` where it can no longer answer.
        """
        loop = self._shared.loop
        answer: asyncio.Future[Any] = loop.create_future()
        if self.process.alive:
            self._asked[answer] = None
            loop.later(self._shared.network.delay(), self._receive, command, at_once, answer)
        else:
            loop.later(self._shared.network.delay(), _refuse, answer)
        return await answer

    async def _begin(self, instance: str) -> None:
        shared = self._shared
        redis: Any = SimulatedRedis(shared.channels)
        pools = [SimulatedPool(database, self.process) for database in shared.databases]
        leases = Leases(instance, self._settings)
        producer: Any = SimulatedProducer(shared.topic, shared.network, self.process.name)
        look_up_after = self._settings.look_up_after
        waiting = Waiting(instance, redis, pools, look_up_after, reply_seal(SECRET))
        self._submission = Submission(
            self._settings, SendingGate(leases), producer, waiting, ClockCheck()
        )
        await leases.start()
        waiting.start()

    def _receive(self, command: Command, at_once: bool, answer: "asyncio.Future[Any]") -> None:
        if self.process.alive:
            self.process.start(self._serve(command, at_once, answer))

    async def _serve(self, command: Command, at_once: bool, answer: "asyncio.Future[Any]") -> None:
        result: Any = None
        error: Exception | None = None
        try:
            if self._submission is None:
                raise Disconnected
            result = await self._submission.submit(
                command,
                at_once=at_once,
                trace=(),
                phases=CommandPhases(self._shared.loop.time()),
            )
        except Exception as raised:  # noqa: BLE001 - the client gets an answer for any error
            error = raised
        self._shared.loop.later(self._shared.network.delay(), self._answer, answer, result, error)

    def _answer(self, answer: "asyncio.Future[Any]", result: Any, error: Any) -> None:
        self._asked.pop(answer, None)
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _break_off(self) -> None:
        for answer in self._asked:
            self._shared.loop.later(self._shared.network.delay(), _refuse, answer)
        self._asked.clear()


class Activator:
    """`microfin routing grow`, in a process of its own."""

    def __init__(self, shared: Shared, partitions: int) -> None:
        self.process = Process(shared.loop, "activator")
        self.grown = False
        self._shared = shared
        self._partitions = partitions

    def start(self) -> None:
        """Start growing."""
        self._shared.history.note("activator", "grows to {} partitions", self._partitions)
        self.process.start(self._grow())

    async def _grow(self) -> None:
        shared, clock = self._shared, SystemClock()
        shards = [
            PostgresRouting(SimulatedPool(database, self.process), shard)
            for shard, database in enumerate(shared.databases)
        ]

        async def ends() -> dict[int, int]:
            await asyncio.sleep(shared.network.delay())
            return shared.topic.ends(shared.network.ends_age())

        producer = SimulatedProducer(shared.topic, shared.network, self.process.name)
        log = MarkedLog(ends, producer)
        while not self.grown:
            try:
                growth = Growth(shards, log, clock, self._say, patience=20.0)
                await growth.to(self._partitions)
                self.grown = True
            except (GrowthRefused, GrowthNotFinished) as error:
                if "never shrink" in str(error):
                    break
                self._say(str(error))
                await asyncio.sleep(1.0)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._say(repr(error))
                await asyncio.sleep(1.0)
        self.process.kill()

    def _say(self, line: str) -> None:
        self._shared.history.note("activator", line.replace("{", "(").replace("}", ")"))


def _refuse(answer: "asyncio.Future[Any]") -> None:
    if not answer.done():
        answer.set_exception(Disconnected())
