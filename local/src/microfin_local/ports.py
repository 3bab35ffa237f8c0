"""The loopback ports of the components: the usual ones, or free ones where those are in use.

Seconds pass between the choice of a port and the moment its program listens, in which another
platform may choose. So each platform holds its ports while it runs, also those without a program.
"""

import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from microfin_local.files import write_atomically

# Below Linux's range for outgoing connections (32768 and up), so that no connection uses a port
# while its owner restarts.
_RANDOM_FIRST, _RANDOM_LAST = 20000, 32000
_SEARCH_UPWARDS = 200


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: a port with old connections in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


class _Holdings:
    """Ports that this process reserves, each for one platform's memory file.

    In a network namespace, to which ports also belong, only one process can have the name of an
    abstract Unix socket; and the kernel frees the name when the process ends for any reason.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[Path, socket.socket]] = {}

    def hold(self, port: int, holder: Path) -> bool:
        """Hold a port. Return False if another platform holds it."""
        if port in self._held:
            return self._held[port][0] == holder
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0microfin-port-{port}")
        except OSError:
            name.close()
            return False
        self._held[port] = (holder, name)
        return True

    def release(self, port: int, holder: Path) -> None:
        """Release a port."""
        if port in self._held and self._held[port][0] == holder:
            self._held.pop(port)[1].close()


_HOLDINGS = _Holdings()


def _candidates(usual: int | None, remembered: int | None) -> Iterable[int]:
    if remembered is not None:
        yield remembered
    if usual is not None:
        yield from range(usual, usual + _SEARCH_UPWARDS)
    while True:
        yield random.randint(_RANDOM_FIRST, _RANDOM_LAST)  # noqa: S311 - not a secret.


class Ports:
    """Chooses a port for each name, writes it into a file, and reuses it while it is free."""

    def __init__(self, memory: Path, *, random_ports: bool = False) -> None:
        self._memory = memory.resolve()
        self._random = random_ports
        self._remembered: dict[str, int] = {}
        if memory.exists():
            self._remembered = json.loads(memory.read_text())
        self._chosen: dict[str, int] = {}
        self.changed: set[str] = set()

    def __getitem__(self, name: str) -> int:
        """Return the port that was chosen for a name. Raises KeyError if none was."""
        return self._chosen[name]

    def choose(self, name: str, usual: int) -> int:
        """Return this name's port: the remembered one, else the usual one, else a free one."""
        if name in self._chosen:
            return self._chosen[name]
        remembered = self._remembered.get(name)
        chosen = set(self._chosen.values())
        # A port that the file names for another name stays reserved for that name.
        reserved = {port for other, port in self._remembered.items() if other != name}
        for port in _candidates(None if self._random else usual, remembered):
            if port not in chosen and port not in reserved and self._hold_if_free(port):
                break
        if port != remembered:
            self.changed.add(name)
        self._chosen[name] = port
        self._remembered[name] = port
        write_atomically(self._memory, json.dumps(self._remembered, indent=2, sort_keys=True))
        return port

    def release(self) -> None:
        """Release all ports, because nothing listens on them any more."""
        for port in self._chosen.values():
            _HOLDINGS.release(port, self._memory)

    def _hold_if_free(self, port: int) -> bool:
        """Hold a port if no other platform holds it and no program listens on it."""
        if not _HOLDINGS.hold(port, self._memory):
            return False
        if is_free(port):
            return True
        _HOLDINGS.release(port, self._memory)
        return False
