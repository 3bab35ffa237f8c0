"""The subject of a run: the running platform, its form, and its commit."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.processes import settings_of
from microfin_loadtest.scripts import FOLDER
from microfin_local.configuration import recall
from microfin_local.endpoints import Endpoints, read_endpoints
from microfin_local.platform import PROCESSES_FILE

_REPOSITORY: Final = FOLDER.parent


def running_platform(state: Path) -> Endpoints:
    """Return the platform's addresses. Raises LoadImpossible if the run may not load it."""
    endpoints = read_endpoints(state)
    if endpoints is None or not endpoints.api:
        raise LoadImpossible("The platform is not running. Start it first: make start")
    if urlsplit(endpoints.api).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise LoadImpossible(f"Load goes to this machine only, not to {endpoints.api}.")
    wanted = os.environ.get("WORKERS", "").strip()
    if wanted and wanted != str(len(endpoints.workers)):
        raise LoadImpossible(
            f"WORKERS is {wanted}, but the running platform has {len(endpoints.workers)}. Start "
            "one of that form, or leave WORKERS out."
        )
    return endpoints


def form_of(state: Path, endpoints: Endpoints) -> dict[str, Any]:
    """Return what the figures depend on: the platform's form and settings, and the cores."""
    record, memory = state / PROCESSES_FILE, recall(state)
    api = settings_of(record, "api-0", lambda name: name.startswith("MICROFIN_ARGON2_"))
    worker = settings_of(record, "worker-0", lambda name: name == "MICROFIN_BATCH_LIMIT")
    return {
        "cores": os.cpu_count(),
        "workers": len(endpoints.workers),
        "api_processes": len(endpoints.apis),
        "shards": memory.get("shards", 1),
        "brokers": memory.get("brokers", 1),
        "argon2_memory_kib": int(api.get("MICROFIN_ARGON2_MEMORY", 19_456)),
        "argon2_time": int(api.get("MICROFIN_ARGON2_TIME", 2)),
        "batch_limit": int(worker.get("MICROFIN_BATCH_LIMIT", 500)),
    }


def worker_urls(state: Path) -> list[str]:
    """Return the workers' current URLs, whose number may have grown."""
    return _endpoints_now(state).workers


def measured_urls(state: Path) -> list[str]:
    """Return the current URLs of all processes that report phases."""
    endpoints = _endpoints_now(state)
    return [*endpoints.apis, *endpoints.workers]


def _endpoints_now(state: Path) -> Endpoints:
    endpoints = read_endpoints(state)
    if endpoints is None:
        raise LoadImpossible("The platform was stopped during the run.")
    return endpoints


def commit() -> str:
    """Return the checkout's commit, with a + if files differ from it."""

    def git(*arguments: str) -> str:
        command = (shutil.which("git") or "git", "-C", str(_REPOSITORY), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ":!loadtest/results", ":!docs")
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{'+' if changed else ''}"
