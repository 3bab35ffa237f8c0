"""Runs Jobs in the bank's namespace to their end, and reads what they found."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.kubernetes import prometheus_answers
from microfin_loadtest.kubernetes.cluster import Namespace, ended
from microfin_loadtest.kubernetes.gate import answers, gate_command
from microfin_loadtest.kubernetes.log import find_object, last_words
from microfin_loadtest.kubernetes.objects import KubernetesObject, Load, gate_job, ledger_job

_PROGRAM: Final = Path(prometheus_answers.__file__)
_LEDGER_SECONDS: Final = 900.0
_GATE_SECONDS: Final = 360.0


async def until(is_so: Callable[[], Awaitable[bool]], patience: float, pause: float) -> bool:
    """Wait until a condition holds, and return whether it did within the time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if await is_so():
            return True
        await asyncio.sleep(pause)
    return False


async def log_at_end(
    namespace: Namespace, item: KubernetesObject, selector: str, patience: float
) -> str:
    """Wait until a Job or TestRun has completed or failed, and return its pods' log."""
    kind, name = item["kind"].lower(), item["metadata"]["name"]
    what = f"{kind}s.k6.io/{name}" if kind == "testrun" else f"{kind}/{name}"

    async def has_ended() -> bool:
        return bool(ended(await asyncio.to_thread(namespace.get, what)))

    if not await until(has_ended, patience, pause=1.0):
        raise LoadImpossible(
            f"{item['kind']} {name} has not ended after {patience:g} s. Look at it with --keep: "
            f"kubectl -n {namespace.name} describe {what}, and its pods."
        )
    return await asyncio.to_thread(namespace.log, selector)


async def ask_ledger(
    namespace: Namespace, load: Load, what: str, command: list[str], field: str
) -> tuple[dict[str, Any] | None, str]:
    """Run a command as an audit runs, and return the printed object with `field`, and the log."""
    cron_job = namespace.get(f"cronjob/{namespace.release}-audit")
    item = ledger_job(load, cron_job, what, command)
    log = await _run_job(namespace, item, _LEDGER_SECONDS)
    return find_object(log, field), log


async def ask_prometheus(
    namespace: Namespace, load: Load, asked: Mapping[str, str]
) -> dict[str, Any]:
    """Ask Prometheus by a pod, and return the report's section about it. If there was no answer,
    `answered` is null, and `impossible` says why."""
    cron_job = namespace.get(f"cronjob/{namespace.release}-audit")
    program = _PROGRAM.read_text(encoding="utf-8")
    item = gate_job(load, cron_job, gate_command(program, load.query, asked))
    log = await _run_job(namespace, item, _GATE_SECONDS)
    found = find_object(log, "found")
    answer: dict[str, Any] = {"url": load.query, "asked": dict(asked)}
    if found is None:
        return {**answer, "answered": None, "impossible": last_words(log)}
    return {**answer, "answered": answers(found["found"])}


async def _run_job(namespace: Namespace, item: KubernetesObject, patience: float) -> str:
    await asyncio.to_thread(namespace.apply, item)
    selector = f"batch.kubernetes.io/job-name={item['metadata']['name']}"
    return await log_at_end(namespace, item, selector, patience)
