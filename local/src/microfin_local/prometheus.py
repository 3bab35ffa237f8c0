"""Prometheus for a running platform, with the charts' alerts."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from microfin_local.endpoints import Endpoints, read_endpoints
from microfin_local.errors import PlatformError
from microfin_local.files import write_atomically
from microfin_local.platform import REPOSITORY
from microfin_local.ports import Ports
from microfin_local.programs import find_program
from microfin_local.supervised import Program, SupervisedProcess
from microfin_local.wait import accepts_connections, wait_until

#: Prometheus' default port.
_PORT = 9090
_RETRY_SECONDS = 2.0
_SETTINGS_FILE, _TARGETS_FILE = "prometheus.yml", "targets.json"


def targets(endpoints: Endpoints) -> list[dict[str, object]]:
    """Return the scrape targets, with the labels that the charts' monitors give pods."""
    components = (("api", endpoints.apis), ("worker", endpoints.workers))
    return [
        {
            "targets": [urlsplit(url).netloc],
            "labels": {
                "namespace": "one-machine",
                "pod": f"{component}-{number}",
                "microfin_part": component,
            },
        }
        for component, urls in components
        for number, url in enumerate(urls)
    ]


def prepare(folder: Path, port: int) -> Program:
    """Write Prometheus' settings and return how to run it. It writes only into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": [
            str(path) for path in sorted(REPOSITORY.glob("charts/*/files/alerts*.yaml"))
        ],
        "scrape_configs": [
            {"job_name": "microfin", "file_sd_configs": [{"files": [str(folder / _TARGETS_FILE)]}]}
        ],
    }
    # JSON is YAML, too.
    write_atomically(folder / _SETTINGS_FILE, json.dumps(settings, indent=2))
    return Program(
        name="prometheus",
        arguments=(
            find_program("prometheus"),
            f"--config.file={folder / _SETTINGS_FILE}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=7d",
            f"--web.listen-address=127.0.0.1:{port}",
        ),
        directory=folder,
    )


def write_targets(folder: Path, endpoints: Endpoints) -> None:
    """Write the scrape targets into a file, whose changes Prometheus notices."""
    write_atomically(folder / _TARGETS_FILE, json.dumps(targets(endpoints), indent=2))


async def observe(state: Path, say: Callable[[str], None]) -> None:
    """Run Prometheus until a signal asks it to stop. Raises PlatformError if nothing runs here."""
    endpoints = read_endpoints(state)
    if endpoints is None:
        raise PlatformError("The platform is not running. `make start` starts it.")
    folder = state / "prometheus"
    folder.mkdir(exist_ok=True)
    port = Ports(folder / "ports.json").choose("prometheus", _PORT)
    write_targets(folder, endpoints)
    log = state / "logs" / "prometheus.log"
    process = SupervisedProcess(prepare(folder, port), log, say, lambda: None)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await process.start()
        await wait_until(lambda: accepts_connections(port), [process], "Prometheus")
        say(f"Prometheus listens on http://127.0.0.1:{port} (alerts: /alerts). Ctrl-C stops it.")
        await _follow(state, folder, stop)
    finally:
        await process.stop()
    say("stopped")


async def _follow(state: Path, folder: Path, stop: asyncio.Event) -> None:
    """Update the targets while the platform grows and restarts, until `stop` is set."""
    while not stop.is_set():
        endpoints = read_endpoints(state)
        if endpoints is not None:
            write_targets(folder, endpoints)
        try:
            await asyncio.wait_for(stop.wait(), _RETRY_SECONDS)
        except TimeoutError:
            continue
