"""Brings clusters to the desired state: one loop for each cluster.

A loop makes a pass when a watch or a worker reports a change, and at the latest after a set time.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from microfin_operator import metrics
from microfin_operator.decide import SOON
from microfin_operator.kubernetes_api import ApiFailure, KubernetesApi
from microfin_operator.metrics import ClusterFigures
from microfin_operator.observation import Observation, WorkerReport
from microfin_operator.reconcile import Pass, reconcile
from microfin_operator.worker_reports import WorkerReader

logger = structlog.get_logger(__name__)

_BURST: Final = 0.2  # seconds between the first event and the pass, because events come in bursts
_PASS_TIMEOUT: Final = 120.0  # seconds
_FIRST_PAUSE: Final = 1.0  # seconds after the first failed pass
_LONGEST_PAUSE: Final = 30.0


class Pace(msgspec.Struct, frozen=True):
    """Three times in seconds: `resync` is the longest time between two passes, `look` the time
    between two requests to the workers, and `lag` the time between two updates of a lag."""

    resync: float
    look: float
    lag: float


class ClusterLoop:
    """Brings one cluster to the desired state, pass after pass."""

    def __init__(
        self, api: KubernetesApi, workers: WorkerReader, pace: Pace, namespace: str, name: str
    ) -> None:
        self._api = api
        self._workers = workers
        self._pace = pace
        self._woken = asyncio.Event()
        self._pause = _FIRST_PAUSE
        self._last: Pass | None = None
        self._success: float | None = None
        self.namespace = namespace
        self.name = name
        self.beat = time.monotonic()

    def wake(self, generation: int | None = None) -> None:
        """Start the next pass. An event of the cluster itself carries its `generation`: the
        operator's own writes of the status do not change it, so they start no pass."""
        last = self._last
        if generation is None or last is None or last.observation.cluster.generation != generation:
            self._woken.set()

    async def run(self) -> None:
        """Make passes until the cluster is gone."""
        while True:
            self._woken.clear()
            try:
                done = await self._pass()
            except Exception as error:  # noqa: BLE001 - after any error the next pass starts afresh
                await self._back_off(error)
                continue
            if done is None:
                if not self._woken.is_set():
                    return
                continue
            self._pause = _FIRST_PAUSE
            self._last = done
            await self._wait(done)

    def figures(self) -> ClusterFigures:
        """Return the figures that the metrics show of the cluster."""
        status = self._last.plan.status if self._last is not None else {}
        age = None if self._success is None else time.monotonic() - self._success
        return ClusterFigures(
            namespace=self.namespace,
            name=self.name,
            phase=status.get("phase", "Pending"),
            partitions=status.get("partitions", {}),
            replicas={
                "all": status.get("replicas", 0),
                "ready": status.get("readyReplicas", 0),
            },
            lag_records=status.get("lagRecords", 0),
            success_age=age,
        )

    async def _pass(self) -> Pass | None:
        self.beat = time.monotonic()
        with metrics.RECONCILE_SECONDS.time():
            async with asyncio.timeout(_PASS_TIMEOUT):
                done = await reconcile(
                    self._api, self._workers, self.namespace, self.name, datetime.now(UTC)
                )
        self._success = self.beat = time.monotonic()
        changed = done is not None and done.changed
        metrics.RECONCILES.labels("changed" if changed else "unchanged").inc()
        return done

    async def _back_off(self, error: Exception) -> None:
        """Wait longer after each failure, so that a returning API server is not overloaded."""
        metrics.RECONCILES.labels("failed").inc()
        cluster = f"{self.namespace}/{self.name}"
        if isinstance(error, ApiFailure | TimeoutError):
            logger.warning("pass failed", cluster=cluster, error=repr(error))
        else:
            logger.error("pass failed", cluster=cluster, exc_info=error)
        pause = self._pause * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)
        await asyncio.sleep(pause)

    async def _wait(self, done: Pass) -> None:
        """Wait until something has changed or the next pass is due."""
        began = time.monotonic()
        due = began + min(done.plan.requeue_after, self._pace.resync)
        look = self._pace.look if done.plan.requeue_after > SOON else self._pace.look / 2
        while True:
            self.beat = time.monotonic()
            left = due - self.beat
            if left <= 0:
                return
            try:
                async with asyncio.timeout(min(look, left)):
                    await self._woken.wait()
            except TimeoutError:
                reports = await self._workers.read(done.observation.worker_pods)
                if _have_changed(done.observation, reports):
                    return
                if time.monotonic() - began >= self._pace.lag and _lag_differs(
                    done.observation, reports
                ):
                    return
            else:
                await asyncio.sleep(_BURST)
                return


class ClusterLoops:
    """The loops of all clusters that the watches have reported."""

    def __init__(self, api: KubernetesApi, workers: WorkerReader, pace: Pace) -> None:
        self._api = api
        self._workers = workers
        self._pace = pace
        self._loops: dict[tuple[str, str], ClusterLoop] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start_or_wake(self, namespace: str, name: str, generation: int) -> None:
        """Start the loop of a new cluster, or wake the loop that the cluster has."""
        loop = self._loops.get((namespace, name))
        if loop is not None:
            loop.wake(generation)
            return
        loop = ClusterLoop(self._api, self._workers, self._pace, namespace, name)
        self._loops[namespace, name] = loop
        task = asyncio.create_task(self._run_until_gone(loop), name=f"loop of {namespace}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wake(self, namespace: str, name: str) -> None:
        """Wake a cluster's loop: the cluster was deleted, or one of its objects has changed."""
        loop = self._loops.get((namespace, name))
        if loop is not None:
            loop.wake()

    def wake_all(self) -> None:
        """Wake all loops: the watches may have missed something."""
        for loop in self._loops.values():
            loop.wake()

    async def stop(self) -> None:
        """End all loops, also in the middle of a pass."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def figures(self) -> Iterable[ClusterFigures]:
        """Return the figures that the metrics show of the clusters."""
        return [loop.figures() for loop in self._loops.values()]

    def oldest_beat(self) -> float | None:
        """Return how many seconds ago the slowest loop last gave a sign of life; None without
        loops."""
        now = time.monotonic()
        return max((now - loop.beat for loop in self._loops.values()), default=None)

    async def _run_until_gone(self, loop: ClusterLoop) -> None:
        await loop.run()
        del self._loops[loop.namespace, loop.name]


def _have_changed(earlier: Observation, reports: dict[int, WorkerReport]) -> bool:
    """Whether a worker's state differs from the one at the last observation."""
    return _states(earlier.reports) != _states(reports)


def _states(reports: dict[int, WorkerReport]) -> dict[int, tuple[object, ...]]:
    return {
        ordinal: (it.state, it.unreachable, it.generation, it.partition_count, it.topic_partitions)
        for ordinal, it in reports.items()
    }


def _lag_differs(earlier: Observation, reports: dict[int, WorkerReport]) -> bool:
    return any(
        (earlier.reports[ordinal].lag_records, int(earlier.reports[ordinal].lag_seconds))
        != (it.lag_records, int(it.lag_seconds))
        for ordinal, it in reports.items()
        if ordinal in earlier.reports
    )
