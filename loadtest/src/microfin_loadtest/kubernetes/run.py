"""One load run against the bank in a Kubernetes cluster, with the load inside it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec

from microfin_loadtest import decision_counts
from microfin_loadtest.backlog import is_at_rest
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.kubernetes.cluster import Namespace
from microfin_loadtest.kubernetes.gate import query_address, questions, why_closed
from microfin_loadtest.kubernetes.jobs import ask_ledger, ask_prometheus, log_at_end, until
from microfin_loadtest.kubernetes.log import find_object, last_words
from microfin_loadtest.kubernetes.objects import (
    RUN_LABEL,
    Load,
    job,
    k6_test_run,
    network_policy,
    place_of,
    scripts_map,
    users_secret,
)
from microfin_loadtest.ledger import verdict
from microfin_loadtest.phases import phases_between
from microfin_loadtest.report import unknown_usage, whole_report
from microfin_loadtest.run import seconds_of
from microfin_loadtest.scripts import EXPECTED_REJECTIONS, find_script
from microfin_loadtest.summary import LoadFigures, read_figures
from microfin_loadtest.users import prepare_users
from microfin_loadtest.validity import why_invalid
from microfin_tools.audit import AuditReport

IMAGE: Final = "docker.io/grafana/k6:1.8.1"
_WHY_NO_USAGE: Final = (
    "The run cannot see processes in a cluster; use the cluster's own metrics, such as "
    "container_cpu_usage_seconds_total."
)
_DECIDED: Final = Path(decision_counts.__file__)
_START_SECONDS: Final = 300.0
_REST_SECONDS: Final = 300.0
_READINGS: Final = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class KubernetesRequest:
    """What to run, and where. `k6_operator` is whether the k6 operator runs it. `prometheus` is the
    address for queries if it does not follow from `remote_write`."""

    script: str
    rate: int
    duration: str
    state: Path
    users: int
    allowed_statuses: Set[int]
    image: str
    remote_write: str
    prometheus: str
    k6_operator: bool
    keep: bool


async def run_in_cluster(
    request: KubernetesRequest, namespace: Namespace, say: Say
) -> dict[str, Any]:
    """Make the run and return its report. Raises LoadImpossible if it cannot be made."""
    script, seconds = find_script(request.script), seconds_of(request.duration)
    query = query_address(request.remote_write, request.prometheus)
    platform = form_in_cluster(namespace)
    port = namespace.get(f"service/{namespace.release}-api")["spec"]["ports"][0]["port"]
    load = Load(
        name=f"load-{script.stem}-{uuid4().hex[:8]}",
        namespace=namespace.name,
        script=script,
        rate=request.rate,
        duration=request.duration,
        seconds=seconds,
        api=f"http://{namespace.release}-api.{namespace.name}:{port}",
        image=request.image,
        remote_write=request.remote_write,
        query=query,
        release=namespace.release,
        place=place_of(namespace.get(f"cronjob/{namespace.release}-audit")),
    )
    users = await _users(request, namespace, platform, say)
    try:
        return await _load_and_audit(request, namespace, load, users, platform, say)
    finally:
        if not request.keep:
            await asyncio.to_thread(
                namespace.delete_run, load.name, k6_operator=request.k6_operator
            )


async def _load_and_audit(
    request: KubernetesRequest,
    namespace: Namespace,
    load: Load,
    users: str,
    platform: dict[str, Any],
    say: Say,
) -> dict[str, Any]:
    before = await _count_decided(namespace, load, "before")
    kind = "TestRun" if request.k6_operator else "Job"
    say(f"{kind} {load.name}: {request.rate} iterations/s for {request.duration}")
    began, scraped = time.monotonic(), await asyncio.to_thread(namespace.scrape)
    figures = await _offer(request, namespace, load, users)
    say("waiting for the backlog")
    rested = await _wait_for_rest(namespace)
    phases = phases_between(scraped, await asyncio.to_thread(namespace.scrape))
    drain = None if rested is None else round(max(rested - figures.ended, 0), 2)
    say("auditing")
    audit = await _audit(namespace, load)
    decided = await _count_decided(namespace, load, "after") - before
    rejections = EXPECTED_REJECTIONS[request.script]
    reasons = why_invalid(figures, rejections, request.allowed_statuses, decided, audit)
    if drain is None:
        reasons.append(f"The backlog was not empty after {_REST_SECONDS:g} s.")
    prometheus = None
    if load.query:
        say("asking Prometheus")
        asked = questions(
            load.name, load.namespace, time.monotonic() - began, request.allowed_statuses
        )
        prometheus = await ask_prometheus(namespace, load, asked)
        reasons += why_closed(prometheus, figures.requests)
    report = whole_report(
        reasons=reasons,
        offered={
            "script": request.script,
            "rate": request.rate,
            "duration_seconds": load.seconds,
            "users": request.users,
            "platform": platform,
        },
        figures=figures,
        decided=decided,
        drain_seconds=drain,
        audit=audit,
        usage=unknown_usage(_WHY_NO_USAGE),
    )
    return {**report, "phases": phases, "prometheus": prometheus}


def form_in_cluster(namespace: Namespace) -> dict[str, Any]:
    """Return what the figures depend on: the bank's form and settings, and the nodes' cores."""
    release = namespace.release
    cluster = namespace.get(f"mfc/{release}")
    api = namespace.get(f"deployment/{release}-api")
    api_settings = namespace.get(f"configmap/{release}-api")["data"]
    worker_settings = namespace.get(f"configmap/{release}-worker")["data"]
    return {
        "cores": namespace.cores(),
        "workers": cluster["status"]["readyReplicas"],
        "api_processes": api["status"].get("readyReplicas", 0),
        "shards": cluster["spec"]["shards"],
        "brokers": namespace.brokers(),
        "argon2_memory_kib": int(api_settings.get("MICROFIN_ARGON2_MEMORY", 19_456)),
        "argon2_time": int(api_settings.get("MICROFIN_ARGON2_TIME", 2)),
        "batch_limit": int(worker_settings.get("MICROFIN_BATCH_LIMIT", 500)),
        "cluster": namespace.context(),
    }


async def _users(
    request: KubernetesRequest, namespace: Namespace, platform: dict[str, Any], say: Say
) -> str:
    """Return the text of the file of prepared users, which are made by a port on this machine."""
    request.state.mkdir(parents=True, exist_ok=True)
    file = request.state / "loadtest-users-kubernetes.json"
    hash_cost = {name: platform[name] for name in ("argon2_memory_kib", "argon2_time")}
    uid = namespace.get(f"mfc/{namespace.release}")["metadata"]["uid"]
    with namespace.api(request.state / "loadtest-port-forward.log") as address:
        await prepare_users(address, file, request.users, hash_cost, say, platform=uid)
    return file.read_text(encoding="utf-8")


async def _offer(
    request: KubernetesRequest, namespace: Namespace, load: Load, users: str
) -> LoadFigures:
    """Run k6 and return what it measured."""
    runner = k6_test_run(load) if request.k6_operator else job(load)
    await asyncio.to_thread(
        namespace.apply,
        scripts_map(load),
        users_secret(load, users),
        network_policy(load),
        runner,
    )
    selector = f"{RUN_LABEL}={load.name},app.kubernetes.io/component=test"
    log = await log_at_end(namespace, runner, selector, load.seconds + _START_SECONDS)
    summary = find_object(log, "slots")
    if summary is None:
        raise LoadImpossible(f"k6 printed no summary: {last_words(log)}")
    return read_figures(summary)


async def _wait_for_rest(namespace: Namespace) -> float | None:
    """Return when the workers came to rest, None if they did not. It is accurate to about a second,
    because each reading starts a program in every worker's pod."""
    since, readings = 0.0, 0

    async def rests() -> bool:
        nonlocal since, readings
        now = time.time()
        states = await asyncio.to_thread(namespace.worker_states)
        if states and all(map(is_at_rest, states)):
            since, readings = (since, readings + 1) if readings else (now, 1)
        else:
            readings = 0
        return readings == _READINGS

    return since if await until(rests, _REST_SECONDS, pause=0.1) else None


async def _audit(namespace: Namespace, load: Load) -> dict[str, Any]:
    command = ["microfin", "audit", "--at-rest", "--json"]
    found, log = await ask_ledger(namespace, load, "audit", command, "violations_total")
    if found is None:
        return {"ok": False, "impossible": last_words(log)}
    return verdict(msgspec.convert(found, AuditReport))


async def _count_decided(namespace: Namespace, load: Load, when: str) -> Counter[str]:
    program = _DECIDED.read_text(encoding="utf-8")
    command = ["python", "-c", program]
    found, log = await ask_ledger(namespace, load, f"decided-{when}", command, "decided")
    if found is None:
        raise LoadImpossible(
            f"The decided operations could not be counted in the databases: {last_words(log)}"
        )
    return Counter(found["decided"])
