"""The addresses of a platform, for programs and people."""

import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path

from microfin_local.files import PRIVATE, write_atomically

ENDPOINTS_FILE = "endpoints.json"
ENVIRONMENT_FILE = "environment"


@dataclass(frozen=True)
class Endpoints:
    """The URLs of every component; empty for one that is not configured. They contain passwords."""

    #: The base URL behind nginx.
    api: str = ""
    #: The base URL of each API process.
    apis: list[str] = field(default_factory=list)
    #: The base URL of each worker's probes, by partition.
    workers: list[str] = field(default_factory=list)
    #: The owner's direct URL of shard 0.
    postgres: str = ""
    #: The owner's direct URL of every shard.
    postgres_shards: list[str] = field(default_factory=list)
    #: The auditor's pooled URL of every shard.
    pgbouncer: list[str] = field(default_factory=list)
    #: Bootstrap servers, separated by commas.
    kafka: str = ""
    #: Every node of the Redis Cluster.
    redis: list[str] = field(default_factory=list)
    #: The environment variables for `microfin` in an operator's shell.
    environment: dict[str, str] = field(default_factory=dict)


def write_endpoints(state: Path, endpoints: Endpoints) -> None:
    """Write `endpoints.json` and, for a shell's `source`, `environment`, readable by the owner."""
    exports = "\n".join(
        f"export {name}={shlex.quote(value)}" for name, value in endpoints.environment.items()
    )
    write_atomically(state / ENVIRONMENT_FILE, exports, PRIVATE)
    write_atomically(state / ENDPOINTS_FILE, json.dumps(asdict(endpoints), indent=2), PRIVATE)


def remove_endpoints(state: Path) -> None:
    """Remove both files, because nothing listens any more."""
    (state / ENDPOINTS_FILE).unlink(missing_ok=True)
    (state / ENVIRONMENT_FILE).unlink(missing_ok=True)


def read_endpoints(state: Path) -> Endpoints | None:
    """Return the endpoints of a platform that is ready, or None."""
    try:
        return Endpoints(**json.loads((state / ENDPOINTS_FILE).read_text()))
    except FileNotFoundError:
        return None
