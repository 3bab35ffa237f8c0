"""The log: partitions of records in memory, the worker's and the API's way to them."""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

from microfin.kafka.producer import Appended, Headers, ProduceRefused, ProduceUnknown
from microfin.ledger import wire
from microfin.ledger.wire import Command
from microfin.process.clock import SystemClock
from microfin_worker.ports import PartitionMissing, Record
from simulation.history import History
from simulation.network import Network
from simulation.plan import LostProduce
from simulation.virtual_loop import VirtualLoop

_CLOCK = SystemClock()
_FETCH_WAIT = 1.0  # seconds, as KafkaLog has it
_HUNG = 5.0  # seconds until a producer gives up


class Topic:
    """All partitions. A record is there, for good, as soon as it is appended."""

    def __init__(self, loop: VirtualLoop, history: History, partitions: int) -> None:
        self._loop = loop
        self._history = history
        self._readers: defaultdict[int, list[asyncio.Future[None]]] = defaultdict(list)
        self.under_way = 0
        self.operations: set[str] = set()
        self.records: list[list[Record]] = [[] for _ in range(partitions)]

    def widen(self, partitions: int) -> None:
        """Have at least `partitions`."""
        while len(self.records) < partitions:
            self.records.append([])

    def append(self, who: str, partition: int, command: Command) -> Appended:
        """Append a command at the broker's time."""
        self.operations.add(command.operation)
        self._history.note(
            "log",
            "{}:{} from {}: {} {} of {} on {} (generation {})",
            partition,
            len(self.records[partition]),
            who,
            command.kind,
            command.leg,
            command.operation,
            command.account,
            command.generation,
        )
        return self.append_bytes(partition, command.account.encode(), wire.encode(command))

    def append_bytes(self, partition: int, key: bytes, value: bytes) -> Appended:
        """Append any record at the broker's time."""
        records = self.records[partition]
        record = Record(len(records), _CLOCK.now(), key, value)
        records.append(record)
        for reader in self._readers.pop(partition, ()):
            if not reader.done():
                reader.set_result(None)
        return Appended(partition, record.offset, record.time)

    def ends(self, age: float = 0.0) -> dict[int, int]:
        """Return the offset after the last record of each partition, `age` seconds ago."""
        newest = _CLOCK.now() - 1000 * age
        return {
            number: bisect_right(records, newest, key=lambda it: it.time) if age else len(records)
            for number, records in enumerate(self.records)
        }

    async def more(self, partition: int, seconds: float) -> None:
        """Wait for the next record of `partition`, at most `seconds`."""
        arrival = self._loop.create_future()
        self._readers[partition].append(arrival)
        timer = self._loop.call_later(seconds, _wake, arrival)
        try:
            await arrival
        finally:
            timer.cancel()


class SimulatedProducer:
    """Appends for one process, in order to each partition; what the network loses is unknown."""

    def __init__(self, topic: Topic, network: Network, process: str) -> None:
        self._topic = topic
        self._network = network
        self._process = process
        self._arrives: dict[int, float] = {}

    async def send(self, partition: int, command: Command, _headers: Headers = ()) -> Appended:
        """Append `command`. Raises `ProduceRefused` and `ProduceUnknown` as the real one does."""
        if partition >= len(self._topic.records):
            raise ProduceRefused(f"The topic has no partition {partition}.")
        network = self._network
        fault = network.produce_fault(self._process)
        if isinstance(fault, LostProduce):
            return await self._send_into_the_dark(partition, command, fault)
        delay = network.delay() + (fault.seconds if fault else 0.0)
        arrives = max(network.loop.time() + delay, self._arrives.get(partition, 0.0))
        self._arrives[partition] = arrives
        return await self._deliver(partition, command, arrives - network.loop.time())

    async def _deliver(self, partition: int, command: Command, delay: float) -> Appended:
        acknowledged: asyncio.Future[Appended] = self._network.loop.create_future()
        self._topic.under_way += 1
        self._network.loop.later(delay, self._arrive, partition, command, acknowledged)
        return await acknowledged

    def _arrive(
        self, partition: int, command: Command, acknowledged: "asyncio.Future[Appended] | None"
    ) -> None:
        self._topic.under_way -= 1
        appended = self._topic.append(self._process, partition, command)
        if acknowledged is not None:
            self._network.loop.later(self._network.delay(), _acknowledge, acknowledged, appended)

    async def _send_into_the_dark(
        self, partition: int, command: Command, fault: LostProduce
    ) -> Appended:
        network = self._network
        network.history.note(
            self._process, "appends {} and hears nothing ({})", command.operation, fault.outcome
        )
        if fault.outcome == "refused":
            await asyncio.sleep(network.delay())
            raise ProduceRefused("simulated: refused")
        if fault.outcome not in ("lost before", "hung"):
            late = fault.seconds if fault.outcome == "late" else 0.0
            self._topic.under_way += 1
            network.loop.later(network.delay() + late, self._arrive, partition, command, None)
        await asyncio.sleep(_HUNG if fault.outcome == "hung" else network.delay() * 2)
        raise ProduceUnknown(f"simulated: {fault.outcome}")


class SimulatedLog:
    """One partition as its worker sees it; `microfin_worker.ports.Log`."""

    def __init__(self, topic: Topic, network: Network, process: str, partition: int) -> None:
        self._topic = topic
        self._network = network
        self._partition = partition
        self._producer = SimulatedProducer(topic, network, process)
        self._next = 0

    async def bounds(self) -> tuple[int, int]:
        """Return the first offset and the one after the last."""
        await asyncio.sleep(self._network.delay())
        if self._partition >= len(self._topic.records):
            raise PartitionMissing(f"there is no partition {self._partition}")
        return 0, self.end()

    async def record_at(self, offset: int) -> Record | None:
        """Return the record at `offset`."""
        await asyncio.sleep(self._network.delay())
        records = self._topic.records[self._partition]
        return records[offset] if offset < len(records) else None

    async def seek(self, offset: int) -> None:
        """Let the next `fetch` begin at `offset`."""
        self._next = offset

    async def fetch(self, limit: int) -> Sequence[Record]:
        """Return the next records, at most `limit`; none if none come within a second."""
        ends = self._network.loop.time() + _FETCH_WAIT
        records = self._topic.records[self._partition]
        while self._next >= len(records):
            left = ends - self._network.loop.time()
            if left <= 0:
                return []
            await self._topic.more(self._partition, left)
        await asyncio.sleep(self._network.delay())
        fetched = records[self._next : self._next + limit]
        self._next += len(fetched)
        return fetched

    async def reread(self, offset: int) -> Record | None:
        """Return the record at `offset`."""
        return await self.record_at(offset)

    def end(self) -> int:
        """Return the offset after the last record."""
        return len(self._topic.records[self._partition])

    async def append(self, partition: int, command: Command) -> int:
        """Append to any partition."""
        return (await self._producer.send(partition, command)).time

    async def note(self, next_offset: int) -> None:
        """Do nothing: no lag tool looks."""


def _wake(arrival: "asyncio.Future[None]") -> None:
    if not arrival.done():
        arrival.set_result(None)


def _acknowledge(acknowledged: "asyncio.Future[Appended]", appended: Appended) -> None:
    if not acknowledged.done():
        acknowledged.set_result(appended)
