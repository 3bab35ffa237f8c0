"""One schedule from its beginning to its end: start, let clients and faults loose, heal, drain,
check."""

import asyncio
from collections import Counter
from functools import cache, partial
from random import Random

import msgspec

from microfin.ledger.routing import Routing
from microfin.process.clock import SystemClock
from microfin.process.settings import ApiSettings
from simulation.broker import Topic
from simulation.clients import Client
from simulation.database import Database
from simulation.drawing_holds import SHORT
from simulation.effects import Effects
from simulation.history import History
from simulation.invariants import check_at_rest, undecided
from simulation.journal import Asked, Journal, Response
from simulation.network import Network
from simulation.opening_balances import give_balances
from simulation.plan import (
    Crash,
    DatabaseRestart,
    Garbage,
    GracefulStop,
    Growth,
    Pause,
    Plan,
    SecondActivator,
    SecondOwner,
)
from simulation.processes import Activator, ApiProcess, WorkerProcess
from simulation.product_edges import simulated_product
from simulation.sessions import Tables
from simulation.shared import Shared
from simulation.simulated_redis import Channels
from simulation.violation import Violation
from simulation.virtual_loop import STARTS_AT, Livelock, Process, VirtualLoop

_CLOCK = SystemClock()
_MOST_STEPS = 300_000
_ENDS_AT = 1_400.0
_CLIENTS_END = 90.0
_GROWN_WITHIN = 60.0  # seconds after the clients' end
_REST_WITHIN = 60.0  # seconds after healing


class Result(msgspec.Struct, frozen=True):
    """What a schedule came to."""

    plan: Plan
    violations: list[Violation]
    history: History
    struck: Counter[str]
    operations: int
    acknowledged: int
    seconds: float


def run_plan(plan: Plan) -> Result:
    """Run one schedule and return its result."""
    loop = VirtualLoop(Random(f"turns {plan.seed}"), _MOST_STEPS, _ENDS_AT)
    world = World(loop, plan)
    try:
        with simulated_product(
            loop, plan.seed, world.shared.databases, plan.tuning.look_up_batches
        ):
            return world.run()
    finally:
        loop.take_apart()


class World:
    """Everything of one schedule."""

    def __init__(self, loop: VirtualLoop, plan: Plan) -> None:
        history = History(loop.time)
        network = Network(loop, plan, history)
        routing = Routing(1, plan.partitions)
        self.effects = Effects(history)
        self.shared = Shared(
            loop=loop,
            plan=plan,
            history=history,
            network=network,
            databases=[
                Database(loop, network, history, Tables(shard, plan.shards, routing), self.effects)
                for shard in range(plan.shards)
            ],
            topic=Topic(loop, history, plan.partitions),
            channels=Channels(network),
        )
        self.journal = Journal(lambda: loop.steps)
        self._workers: list[WorkerProcess] = []
        self._apis: list[ApiProcess] = []
        self._activators: list[Activator] = []
        self._instances = 0
        self._healed = False
        self._spent: set[int] = set()
        give_balances(plan, self.shared.databases)

    def run(self) -> Result:
        """Run the schedule."""
        try:
            self.shared.loop.run(self._run())
        except Livelock as livelock:
            self.effects.violations.append(Violation(5, f"the schedule never ends: {livelock}"))
        shared = self.shared
        violations = self.effects.violations or check_at_rest(
            shared.plan,
            shared.databases,
            shared.topic,
            self.effects,
            self.journal,
        )
        return Result(
            plan=shared.plan,
            violations=violations,
            history=shared.history,
            struck=shared.network.struck,
            operations=len(self.journal.asked),
            acknowledged=sum(it.acknowledged is not None for it in self.journal.asked.values()),
            seconds=shared.loop.time() - STARTS_AT,
        )

    async def _run(self) -> None:
        shared, plan = self.shared, self.shared.plan
        for partition in range(plan.partitions):
            self._start_worker(partition)
        self._apis = [self._make_api(number) for number in range(plan.apis)]
        for fault in plan.faults:
            self._schedule(fault)
        for growth in plan.growths:
            shared.loop.later(growth.at, self._grow, growth)
        clients = [self._start_client(number) for number in range(len(plan.clients))]
        if clients:
            done, _ = await asyncio.wait(clients, timeout=_CLIENTS_END)
            for client in done:
                client.result()
        await self._wait_for_growth()
        self._heal()
        await self._rest()

    async def _wait_for_growth(self) -> None:
        deadline = self.shared.loop.time() + _GROWN_WITHIN
        while not self.effects.violations and not self._has_grown():
            await asyncio.sleep(0.25)
            if self.shared.loop.time() > deadline:
                self.effects.violate(5, "a growth that was begun never ends, and holds commands")

    # Starting ---------------------------------------------------------------------------------

    def _start_worker(self, partition: int, name: str = "") -> None:
        worker = WorkerProcess(self.shared, partition, name or f"worker-{partition}")
        self._workers.append(worker)
        self._set_traps(worker.process)
        worker.start()

    def _make_api(self, number: int) -> ApiProcess:
        tuning = self.shared.plan.tuning
        settings = api_settings(
            self.shared.plan.shards,
            tuning.answer_within,
            tuning.unknown_after,
            tuning.deadline,
        )
        api = ApiProcess(self.shared, f"api-{number}", settings)
        self._set_traps(api.process)
        self._instances += 1
        api.start(f"instance{self._instances}")
        return api

    def _start_client(self, number: int) -> asyncio.Task[None]:
        planned = self.shared.plan.clients[number]
        client = Client(
            planned,
            self._apis,
            self.journal,
            self.shared.history,
            self.shared.loop,
            self._look,
            self.shared.plan.seed,
        )
        return Process(self.shared.loop, planned.name).start(client.run())

    def _grow(self, growth: Growth) -> None:
        before = len(self.shared.topic.records)
        self.shared.topic.widen(growth.partitions)
        for partition in range(before, growth.partitions):
            self._start_worker(partition)
        self._activate(growth.partitions)

    def _activate(self, partitions: int) -> None:
        activator = Activator(self.shared, partitions)
        self._activators.append(activator)
        self._set_traps(activator.process)
        activator.start()

    # Faults -----------------------------------------------------------------------------------

    def _schedule(self, fault: object) -> None:
        later = self.shared.loop.later
        match fault:
            case SecondOwner(partition=partition, at=at):
                later(at, self._second_owner, partition)
            case GracefulStop():
                later(fault.at, self._stop_gracefully, fault)
            case DatabaseRestart():
                later(fault.at, self._restart_database, fault)
            case SecondActivator(at=at):
                later(at, self._second_activator)
            case Garbage():
                later(fault.at, self._append_garbage, fault)

    def _set_traps(self, process: Process) -> None:
        """Let a process meet its crashes and pauses, at their turns."""
        for fault in self.shared.plan.faults:
            if isinstance(fault, Crash | Pause) and fault.when.process == process.name:
                strike = partial(self._strike, process, fault)
                if fault.when.event == "turn":
                    process.traps[fault.when.number] = strike
                else:
                    self.shared.network.watch(fault.when, strike)

    def _strike(self, process: Process, fault: Crash | Pause) -> None:
        if self._healed or id(fault) in self._spent or not process.alive:
            return
        self._spent.add(id(fault))
        name = type(fault).__name__
        self.shared.network.struck[name] += 1
        self.shared.history.note(process.name, "{} for {:.3f} s", name.lower(), fault.seconds)
        if isinstance(fault, Crash):
            process.kill()
            self.shared.loop.later(fault.seconds, self._restart, process.name)
        else:
            process.pause()
            self.shared.loop.later(fault.seconds, self._resume, process)

    def _resume(self, process: Process) -> None:
        if process.paused:
            self.shared.history.note(process.name, "wakes")
            process.resume()

    def _restart(self, name: str) -> None:
        role, _, number = name.partition("-")
        if role == "worker":
            self._start_worker(int(number))
        elif role == "api":
            self._apis[int(number)] = self._make_api(int(number))
        else:
            self._activate(len(self.shared.topic.records))

    def _second_owner(self, partition: int) -> None:
        if not self._healed and partition < len(self.shared.topic.records):
            self.shared.network.struck["SecondOwner"] += 1
            self._start_worker(partition, f"worker-{partition}-other")

    def _stop_gracefully(self, fault: GracefulStop) -> None:
        name = f"worker-{fault.partition}"
        for worker in self._workers:
            if not self._healed and worker.process.alive and worker.process.name == name:
                self.shared.network.struck["GracefulStop"] += 1
                worker.process.at_death.append(
                    lambda: self.shared.loop.later(fault.seconds, self._restart, name)
                )
                worker.stop()

    def _restart_database(self, fault: DatabaseRestart) -> None:
        if not self._healed:
            self.shared.network.struck["DatabaseRestart"] += 1
            self.shared.databases[fault.shard].restart(fault.seconds)

    def _append_garbage(self, fault: Garbage) -> None:
        if not self._healed and fault.partition < len(self.shared.topic.records):
            self.shared.network.struck["Garbage"] += 1
            self.shared.topic.append_bytes(fault.partition, b"key", b"no command")

    def _second_activator(self) -> None:
        if not self._healed and not self._has_grown():
            self.shared.network.struck["SecondActivator"] += 1
            self._activate(len(self.shared.topic.records))

    # Ending -----------------------------------------------------------------------------------

    def _heal(self) -> None:
        """End all faults. Workers that live are left as they are: only what is dead is started."""
        self._healed = True
        self.shared.history.note("world", "heals")
        self.shared.network.heal()
        for api in self._apis:
            api.process.kill()
        for worker in list(self._workers):
            self._resume(worker.process)
        for activator in self._activators:
            self._resume(activator.process)

    def _has_grown(self) -> bool:
        """Whether all growths of the plan, as far as they began, have come to an end."""
        partitions = len(self.shared.topic.records)
        return len(self._activators) == 0 or all(
            database.tables.routing["partition_count"] == partitions
            for database in self.shared.databases
        )

    async def _rest(self) -> None:
        deadline = self.shared.loop.time() + _REST_WITHIN
        while not self._is_at_rest() and self.shared.loop.time() < deadline:
            if self.effects.violations:
                return
            await asyncio.sleep(0.1)

    def _is_at_rest(self) -> bool:
        shared = self.shared
        return (
            shared.topic.under_way == 0
            and not any(database.tables.outbox for database in shared.databases)
            and not undecided(shared.databases, shared.topic)
            and not self._holds_end_soon()
        )

    def _holds_end_soon(self) -> bool:
        soon = _CLOCK.now() + SHORT
        return any(
            hold.ends < soon
            for database in self.shared.databases
            for hold in database.tables.holds.values()
        )

    def _look(self, asked: Asked, response: Response) -> None:
        self.effects.look(self.shared.databases, self.shared.topic, asked, response)


@cache
def api_settings(
    shards: int, answer_within: float, unknown_after: float, deadline: float
) -> ApiSettings:
    """Return the settings of an API process."""
    return ApiSettings(
        databases=" ".join(f"postgresql://shard/{shard}" for shard in range(shards)),
        answer_within=answer_within,
        unknown_after=max(unknown_after, answer_within),
        command_deadline=deadline,
    )
