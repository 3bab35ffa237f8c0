"""A platform's form and state folder, and the rules for changes once it has state."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from microfin_local.errors import PlatformError
from microfin_local.files import write_atomically

COMPONENTS = frozenset({"postgres", "pgbouncer", "redis", "kafka", "nginx", "workers", "api"})
#: The components that the store, the worker and the API need; tests start those themselves.
DATA_COMPONENTS = frozenset({"postgres", "pgbouncer", "redis", "kafka"})

TOPIC = "microfin.commands"
_MEMORY = "platform.json"
_REMEMBERED = ("workers", "shards", "brokers", "archives")
_OWNERS = ("MICROFIN_DATABASES_DIRECT", "MICROFIN_ARCHIVES_DIRECT")
_LIMITS = {
    "workers": (1, 64),
    "shards": (1, 8),
    "redis_replicas": (0, 1),
    "api_processes": (1, 16),
    "archives": (0, 1),
}


@dataclass(frozen=True)
class Configuration:
    """The form of one platform. With `archives`, each shard has an archive: another database of the
    same PostgreSQL. `extra` are settings (MICROFIN_…) for API and workers.

    The other fields are for tests of faults. `proxy` is the command of a proxy between the
    components (see `detours`); its last argument is the file with the routes. `own` are environment
    variables of single processes, by name. `database_folder` is the folder of PostgreSQL's and
    PgBouncer's files, for example on a file system of a limited size. `tls` is a folder with
    `ca.pem`, `broker.pem` (a key and its certificate), `server.crt` and `server.key`: each broker
    then has one more listener (port `kafka-1 tls` and so on), which accepts only clients with a
    certificate from that CA and gives them only the rights that ACLs give; each node of Redis has
    one more port (`redis-0 tls`); PostgreSQL and PgBouncer speak TLS to clients that want it.
    """

    state: Path
    workers: int = 4
    shards: int = 1
    brokers: int = 1
    redis_replicas: int = 0
    api_processes: int = 2
    archives: int = 0
    components: frozenset[str] = COMPONENTS
    random_ports: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    proxy: tuple[str, ...] = ()
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    database_folder: Path | None = None
    tls: Path | None = None

    def __post_init__(self) -> None:
        """Raise PlatformError for a form that cannot work."""
        unknown = self.components - COMPONENTS
        if unknown:
            raise PlatformError(f"There is no component called {', '.join(sorted(unknown))}.")
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise PlatformError(
                    f"{name.upper()} is {getattr(self, name)}; "
                    f"it must be between {least} and {most}."
                )
        if self.brokers not in (1, 3):
            raise PlatformError(f"BROKERS is {self.brokers}; it must be 1 or 3.")
        if self.workers % self.shards:
            raise PlatformError(
                f"WORKERS is {self.workers} and SHARDS is {self.shards}; "
                "WORKERS must be a multiple of SHARDS, so that no account ever changes its shard."
            )

    @property
    def logs(self) -> Path:
        """The folder of the processes' logs."""
        return self.state / "logs"


def recall(state: Path) -> dict[str, int]:
    """Return the form of the existing state; empty if there is no state."""
    try:
        memory: dict[str, int] = json.loads((state / _MEMORY).read_text())
    except FileNotFoundError:
        return {}
    return memory


def remember(configuration: Configuration) -> None:
    """Write the form of the state into a file, for `recall`."""
    form = {name: getattr(configuration, name) for name in _REMEMBERED}
    write_atomically(configuration.state / _MEMORY, json.dumps(form, indent=2))


def refuse_changed_form(configuration: Configuration, memory: Mapping[str, int]) -> None:
    """Raise PlatformError if existing state cannot serve this configuration."""
    for name in ("shards", "brokers"):
        wanted, made_with = getattr(configuration, name), memory.get(name)
        if made_with is not None and wanted != made_with:
            raise PlatformError(
                f"The state in {configuration.state} was made with {name.upper()}={made_with} and "
                f"cannot change to {wanted}. Start with {name.upper()}={made_with}, "
                "or forget the state with `make clean`."
            )
    partitions = memory.get("workers")
    if partitions is None or partitions == configuration.workers:
        return
    if configuration.workers < partitions:
        raise PlatformError(
            f"The state in {configuration.state} has {partitions} partitions, each needs its "
            f"worker, and partitions never shrink. Start with WORKERS={partitions}, "
            "or forget the state with `make clean`."
        )
    raise PlatformError(
        f"The state in {configuration.state} has {partitions} partitions. Start with "
        f"WORKERS={partitions} and then grow with `make grow WORKERS={configuration.workers}`, "
        "which keeps every account's order."
    )


def from_environment(environment: Mapping[str, str], state: Path) -> Configuration:
    """Read WORKERS, SHARDS and the like; a missing variable has the existing state's value."""
    memory = recall(state)

    def number(name: str, otherwise: int) -> int:
        text = environment.get(name, "").strip()
        if not text:
            return otherwise
        if not text.isascii() or not text.isdigit():
            raise PlatformError(f"{name} is {text!r}; it must be a whole number.")
        return int(text)

    return Configuration(
        state=state,
        workers=number("WORKERS", memory.get("workers", 4)),
        shards=number("SHARDS", memory.get("shards", 1)),
        brokers=number("BROKERS", memory.get("brokers", 1)),
        redis_replicas=number("REDIS_REPLICAS", 0),
        api_processes=number("API_PROCESSES", 2),
        # Remembered: without its archive a ledger could not tell what it has archived.
        archives=number("ARCHIVES", memory.get("archives", 0)),
        extra={
            name: text
            for name, text in environment.items()
            # An operator's shell may have the owner's URLs, which no process may receive.
            if name.startswith("MICROFIN_") and name not in _OWNERS
        },
    )
