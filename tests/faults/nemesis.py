"""Does what a fault says, to a running platform, and undoes it."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from faults.clocks import Clocks
from faults.disk import SmallDisk
from faults.proxy import ProxyControl
from faults.schedule import Fault
from microfin_local import applications
from microfin_local.configuration import TOPIC
from microfin_local.credentials import SUPERUSER
from microfin_local.platform import Platform
from microfin_local.ports import Ports
from microfin_local.supervised import SupervisedProcess
from microfin_local.wait import accepts_connections

_BACK_SECONDS = 60.0
_POLL_SECONDS = 0.02
_CUT_EVERY = 0.1
_AWAKE_SECONDS = 1.5  # for a zombie to find out that it is one
_WAL_SWITCHES = 40


class Injected(msgspec.Struct, frozen=True):
    """A fault as it happened: its beginning and its component's return (monotonic seconds)."""

    fault: Fault
    began: float
    returned: float


class Nemesis:
    """Breaks one platform."""

    def __init__(
        self, platform: Platform, disk: SmallDisk, clocks: Clocks, say: Callable[[str], None]
    ) -> None:
        self._platform = platform
        self._disk = disk
        self._clocks = clocks
        self._say = say
        self._successors: list[SupervisedProcess] = []

    async def inject(self, fault: Fault, start: float) -> Injected:
        """Wait for the fault's time, do it, undo it, and return when its component is back."""
        targets = await self._resolved(fault.targets)
        fault = msgspec.structs.replace(fault, targets=targets)
        await asyncio.sleep(max(0.0, start + fault.begin - time.monotonic()))
        began = time.monotonic()
        acts: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "freeze": self._freeze,
            "absence": self._be_absent,
            "zombie": self._make_a_zombie,
            "replies cut": self._cut_replies,
            "disk full": self._fill_disk,
            "clock": self._shift_clock,
        }
        await acts.get(fault.kind, self._break_way)(fault)
        return Injected(fault, began, time.monotonic())

    @property
    def _proxy(self) -> ProxyControl:
        return ProxyControl(self._platform.detours.control)

    async def heal(self) -> None:
        """Undo all that may have been left: nothing is broken any more, all processes run."""
        self._disk.release()
        await self._proxy.put([it.name for it in self._platform.detours.all], "none")
        for successor in self._successors:
            await successor.stop()
        self._successors.clear()
        for name in self._platform.process_names:
            await self._platform.resume(name)
            await self._platform.start_process(name)
            with contextlib.suppress(FileNotFoundError):
                self._clocks.set(name, 0)

    # Processes ------------------------------------------------------------------------------

    async def _resolved(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        """Put the broker that leads a partition now in the place of `leader-P`."""
        if not targets[0].startswith("leader-"):
            return targets
        partition = int(targets[0].removeprefix("leader-"))
        bootstrap = self._platform.endpoints.kafka
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
        try:
            await admin.start()
            (topic,) = await admin.describe_topics([TOPIC])
            leaders = {it["partition"]: it["leader"] for it in topic["partitions"]}
        except KafkaError:
            return ("kafka-1",)
        finally:
            await admin.close()
        return (f"kafka-{leaders.get(partition, 1)}",)

    async def _kill(self, fault: Fault) -> None:
        await self._end(fault, self._platform.kill)

    async def _stop(self, fault: Fault) -> None:
        await self._end(fault, self._platform.terminate)

    async def _end(self, fault: Fault, end: Callable[[str], Awaitable[None]]) -> None:
        """End processes in a way; the supervisor starts them again."""
        before = {name: self._platform.process(name).process_id for name in fault.targets}
        for name in fault.targets:
            await end(name)
        for name, process_id in before.items():
            await self._until(partial(self._is_back, name, process_id), name)

    async def _freeze(self, fault: Fault) -> None:
        for name in fault.targets:
            await self._platform.pause(name)
        await asyncio.sleep(fault.seconds)
        for name in fault.targets:
            await self._platform.resume(name)

    async def _be_absent(self, fault: Fault) -> None:
        await asyncio.gather(*(self._platform.stop_process(name) for name in fault.targets))
        await asyncio.sleep(fault.seconds)
        for name in fault.targets:
            await self._platform.start_process(name)
        for name in fault.targets:
            await self._until(partial(self._is_back, name, None), name)

    async def _make_a_zombie(self, fault: Fault) -> None:
        """Freeze a worker, let another take over its partition, and wake the first one up."""
        (name,) = fault.targets
        await self._platform.pause(name)
        successor = self._successor(int(name.rpartition("-")[2]))
        self._successors.append(successor)
        await successor.start()
        await asyncio.sleep(fault.seconds)
        await self._platform.resume(name)
        await asyncio.sleep(_AWAKE_SECONDS)
        await self._end(fault, self._platform.kill)
        await successor.stop()
        self._successors.remove(successor)

    def _successor(self, partition: int) -> SupervisedProcess:
        state = self._platform.configuration.state
        port = Ports(state / "successors.json", random_ports=True).choose("successor", 0)
        program = applications.worker(
            partition,
            port,
            state,
            self._platform.environment("worker"),
            self._platform.configuration.extra,
        )
        program = dataclasses.replace(program, name=f"worker-{partition}-successor")
        log = self._platform.configuration.logs / f"{program.name}.log"
        return SupervisedProcess(program, log, self._say, lambda: None)

    # Everything else ------------------------------------------------------------------------

    async def _break_way(self, fault: Fault) -> None:
        ways = list(fault.targets)
        await self._proxy.put(ways, fault.kind, fault.amount)
        await asyncio.sleep(fault.seconds)
        await self._proxy.put(ways, "none")

    async def _cut_replies(self, fault: Fault) -> None:
        """Break every subscription off, again and again."""
        until = time.monotonic() + fault.seconds
        while time.monotonic() < until:
            await asyncio.gather(*(self._end_subscriptions(name) for name in fault.targets))
            await asyncio.sleep(_CUT_EVERY)

    async def _end_subscriptions(self, name: str) -> None:
        port = self._platform.detours[name].target
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"CLIENT KILL TYPE pubsub\r\n")
                await reader.readline()
                writer.close()

    async def _fill_disk(self, fault: Fault) -> None:
        filled = await asyncio.to_thread(self._disk.fill)
        self._say(f"the disk is full: {filled >> 20} MiB were left")
        until = time.monotonic() + fault.seconds
        if fault.amount:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
                await asyncio.wait_for(self._switch_logs(), fault.seconds)
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        self._disk.release()
        await self._until(partial(self._is_back, "postgres-0", None), "postgres-0")

    async def _switch_logs(self) -> None:
        """Let PostgreSQL need one file for its log after another."""
        url = self._platform.postgres_direct(role=SUPERUSER, database="postgres")
        connection = await asyncpg.connect(url, timeout=2)
        try:
            for _ in range(_WAL_SWITCHES):
                await connection.execute("SELECT pg_logical_emit_message(false, 'faults', 'x')")
                await connection.execute("SELECT pg_switch_wal()")
        finally:
            connection.terminate()

    async def _shift_clock(self, fault: Fault) -> None:
        for name in fault.targets:
            self._clocks.set(name, fault.amount)
        await asyncio.sleep(fault.seconds)
        for name in fault.targets:
            self._clocks.set(name, 0)

    # Looking --------------------------------------------------------------------------------

    async def _until(self, is_so: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + _BACK_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError):
                if await is_so():
                    return
            await asyncio.sleep(_POLL_SECONDS)
        raise RuntimeError(f"{what} did not come back within {_BACK_SECONDS} s")

    async def _is_back(self, name: str, process_id_before: int | None) -> bool:
        """Whether a process other than the one before runs, and listens."""
        process_id = self._platform.process(name).process_id
        if process_id is None or process_id == process_id_before:
            return False
        if name.startswith("postgres"):
            connection = await asyncpg.connect(self._platform.postgres_direct(), timeout=2)
            await connection.close()
            return True
        return await accepts_connections(self._platform.port_of(name))
