"""The other controllers and the workers, as far as the operator sees them.

Kafka is a number here, and the routing a pair of numbers; what matters is who waits for whom.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp.web

from microfin_operator.kinds import JOB, KAFKA, KAFKA_TOPIC, POD, STATEFUL_SET, KubernetesObject
from microfin_operator.names import WORKER
from support.operator import states
from support.operator.emulated_api import EmulatedApi

NOW = "2026-11-23T00:00:00Z"


class World:
    """A StatefulSet controller, a kubelet, Strimzi's Topic Operator, Jobs and workers."""

    def __init__(self, api: EmulatedApi) -> None:
        self.api = api
        self.kafka = 0
        self.routing = (1, 3)
        self.strimzi_runs = True
        self.failing_growths = 0
        self.disturbed = False
        self.broken_image = ""
        self.rolled: list[str] = []
        self.most_down_at_once = 0
        self.port = 0
        self.unreachable: list[str] = []
        self.workers_speak = asyncio.Event()
        self.workers_speak.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all controllers and the workers' HTTP."""
        runner = await self._serve_workers()
        await self.api.put(KAFKA, states.kafka("apps"))
        running = asyncio.create_task(self._run())
        try:
            yield
        finally:
            running.cancel()
            (end,) = await asyncio.gather(running, return_exceptions=True)
            await runner.cleanup()
            if not isinstance(end, asyncio.CancelledError):
                raise AssertionError("a controller failed") from end

    async def _run(self) -> None:
        while True:
            self.api.changed.clear()
            for topic in self.api.items(KAFKA_TOPIC):
                await self._topic(topic)
            for item in self.api.items(STATEFUL_SET):
                await self._stateful_set(item)
            for job in self.api.items(JOB):
                await self._job(job)
            with contextlib.suppress(TimeoutError):  # Kafka and images change without a word
                await asyncio.wait_for(self.api.changed.wait(), 0.1)

    # Strimzi ----------------------------------------------------------------------------------

    async def _topic(self, topic: KubernetesObject) -> None:
        metadata, wanted = topic["metadata"], topic["spec"]["partitions"]
        seen = topic.get("status", {}).get("observedGeneration")
        if not self.strimzi_runs or seen == metadata["generation"]:
            return
        ready: dict[str, Any] = {"type": "Ready", "status": "True"}
        if wanted < self.kafka:
            ready = {
                "type": "Ready",
                "status": "False",
                "reason": "NotSupported",
                "message": "Decreasing partitions not supported",
            }
        self.kafka = max(self.kafka, wanted)
        status = {"observedGeneration": metadata["generation"], "conditions": [ready]}
        await self._write(KAFKA_TOPIC, topic, {"status": status})

    # StatefulSets -----------------------------------------------------------------------------

    async def _stateful_set(self, item: KubernetesObject) -> None:
        name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
        replicas, template = item["spec"]["replicas"], item["spec"]["template"]
        revision = hashlib.blake2b(
            json.dumps(template, sort_keys=True).encode(), digest_size=4
        ).hexdigest()
        pods = {pod["metadata"]["name"]: pod for pod in self._pods(namespace, name)}
        for ordinal in range(replicas):
            if f"{name}-{ordinal}" not in pods:
                await self.api.put(POD, self._pod(item, ordinal, revision))
        for pod_name in pods:
            if int(pod_name.rpartition("-")[2]) >= replicas:
                await self.api.remove(POD, namespace, pod_name)
        pods = {pod["metadata"]["name"]: pod for pod in self._pods(namespace, name)}
        for pod in pods.values():
            await self._kubelet(pod)
        await self._roll(pods, revision)
        current = [pod for pod in pods.values() if _revision(pod) == revision]
        ready = [pod for pod in pods.values() if _is_ready(pod)]
        before = item.get("status", {}).get("currentRevision", revision)
        status = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": len(pods),
            "readyReplicas": len(ready),
            "updatedReplicas": len(current),
            "updateRevision": revision,
            "currentRevision": revision if len(current) == len(pods) else before,
        }
        if item.get("status") != status:
            await self._write(STATEFUL_SET, item, {"status": status})

    async def _roll(self, pods: dict[str, KubernetesObject], revision: str) -> None:
        """Replace the highest old pod, but only while all others are ready."""
        down = [pod for pod in pods.values() if not _is_ready(pod)]
        if self.rolled:
            self.most_down_at_once = max(self.most_down_at_once, len(down))
        for pod in sorted(pods.values(), key=_ordinal, reverse=True):
            metadata = pod["metadata"]
            if _revision(pod) != revision:
                self.rolled.append(metadata["name"])
                await self.api.remove(POD, metadata["namespace"], metadata["name"])
                return
            if not _is_ready(pod):
                return

    def _pod(self, item: KubernetesObject, ordinal: int, revision: str) -> KubernetesObject:
        template = item["spec"]["template"]
        labels = {**template["metadata"]["labels"], "controller-revision-hash": revision}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{item['metadata']['name']}-{ordinal}",
                "namespace": item["metadata"]["namespace"],
                "labels": labels,
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }

    def _pods(self, namespace: str, stateful_set: str) -> list[KubernetesObject]:
        return [
            pod
            for pod in self.api.items(POD)
            if pod["metadata"]["namespace"] == namespace
            and pod["metadata"]["name"].rpartition("-")[0] == stateful_set
        ]

    async def _kubelet(self, pod: KubernetesObject) -> None:
        if self.broken_image and pod["spec"]["containers"][0]["image"] == self.broken_image:
            waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
            status: dict[str, Any] = {
                "phase": "Pending",
                "containerStatuses": [{"name": WORKER, "state": {"waiting": waiting}}],
            }
        else:
            ready = "True" if self._state(_ordinal(pod)) == "working" else "False"
            status = {
                "phase": "Running",
                "podIP": f"127.1.0.{_ordinal(pod) + 1}",
                "conditions": [{"type": "Ready", "status": ready}],
            }
        if pod.get("status") != status:
            await self._write(POD, pod, {"status": status})

    # Jobs -------------------------------------------------------------------------------------

    async def _job(self, job: KubernetesObject) -> None:
        if job.get("status", {}).get("conditions"):
            return
        command = job["spec"]["template"]["spec"]["containers"][0]["command"]
        partitions = int(command[command.index("--partitions") + 1])
        kind = "Complete"
        if command[1] == "topic":
            self.kafka = max(self.kafka, partitions)
        elif self.failing_growths:
            self.failing_growths -= 1
            kind = "Failed"
        else:
            assert self.kafka >= partitions, "routing grow before the topic has the partitions"
            missing = [it for it in range(partitions) if not self._pod_is_there(it)]
            assert self.disturbed or not missing, f"partitions {missing} have no workers yet"
            if missing:  # deleted since the operator looked: the command refuses
                kind = "Failed"
            elif self.routing[1] < partitions:
                self.routing = (self.routing[0] + 1, partitions)
        condition = {"type": kind, "status": "True", "lastTransitionTime": NOW}
        await self._write(JOB, job, {"status": {"conditions": [condition]}})

    # Workers ----------------------------------------------------------------------------------

    async def _serve_workers(self) -> aiohttp.web.AppRunner:
        """Serve every worker's `/status`: each has its own address."""
        application = aiohttp.web.Application()
        application.add_routes([aiohttp.web.get("/status", self._status)])
        runner = aiohttp.web.AppRunner(application, access_log=None)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, "0.0.0.0", 0).start()  # noqa: S104 - loopback addresses
        self.port = runner.addresses[0][1]
        return runner

    async def _status(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        await self.workers_speak.wait()
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        ordinal = int(address.rpartition(".")[2]) - 1
        if not self._pod_is_there(ordinal):
            raise aiohttp.web.HTTPServiceUnavailable
        generation, count = self.routing
        working = self._state(ordinal) == "working"
        return aiohttp.web.json_response(
            {
                "partition": ordinal,
                "state": "disconnected" if working and self.unreachable else self._state(ordinal),
                "unreachable": self.unreachable,
                "reason": "" if working else "the topic has no such partition",
                "generation": generation if working else 0,
                "partition_count": count if working else 0,
                "topic_partitions": self.kafka,
                "lag_records": 0,
                "lag_seconds": 0.0,
                "batches": 7,
            }
        )

    def _state(self, ordinal: int) -> str:
        return "working" if ordinal < self.kafka else "waiting"

    def _pod_is_there(self, ordinal: int) -> bool:
        return any(_ordinal(pod) == ordinal for pod in self.api.items(POD))

    async def _write(self, kind: Any, item: KubernetesObject, patch: KubernetesObject) -> None:
        metadata = item["metadata"]
        with contextlib.suppress(KeyError, ValueError):  # gone meanwhile
            await self.api.change(kind, metadata["namespace"], metadata["name"], patch)


def _ordinal(pod: KubernetesObject) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _revision(pod: KubernetesObject) -> str:
    return str(pod["metadata"]["labels"]["controller-revision-hash"])


def _is_ready(pod: KubernetesObject) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)
