"""The threads of a platform, and what each is for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from microfin_local.process_tree import descendants

_PARTS: Final = (
    ("hashing_process", "hashing"),
    ("microfin_worker", "worker"),
    ("microfin_api", "API"),
    ("wake_ups.client", "client"),
    ("pgbouncer", "PgBouncer"),
    ("redis-server", "Redis"),
    ("nginx", "nginx"),
    ("java", "Kafka"),
    ("microfin_local", "supervisor"),
)
_PROC: Final = Path("/proc")


def threads_of(process_ids: list[int]) -> dict[int, str]:
    """Return the names of all threads of these processes and of those that descend from them."""
    names: dict[int, str] = {}
    for process_id in process_ids:
        for member in descendants(process_id):
            names.update(_threads(member))
    return names


def _threads(process_id: int) -> Iterator[tuple[int, str]]:
    try:
        folder = _PROC / str(process_id)
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for thread in (folder / "task").iterdir():
            comm = (thread / "comm").read_text().strip()
            yield int(thread.name), _name(command, comm, main=int(thread.name) == process_id)
    except OSError:
        return  # it has ended


def _name(command: str, comm: str, *, main: bool) -> str:
    if command.startswith("postgres:"):
        title = command.removeprefix("postgres:").split()
        if title[0] in ("microfin_api", "microfin_worker"):
            return f"PostgreSQL for {title[0].removeprefix('microfin_')}"
        return f"PostgreSQL's {' '.join(title)}"
    part = next((name for word, name in _PARTS if word in command), comm)
    if part == "Kafka":
        return "Kafka" if comm.startswith("data-plane") else "Kafka's own timers"
    return part if main or part in ("nginx", "client") else f"{part}, another thread"
