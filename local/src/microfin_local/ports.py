"""The loopback ports of the components: the usual ones, or free ones where those are in use.

Seconds pass between the choice of a port and its program's listening, in which another platform may
choose. So each holds what it has chosen, for as long as it runs, whether a program listens or not.
"""

import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from microfin_local.files import write_atomically

# Below Linux's range for outgoing connections (32768 and up), so that no connection takes a port
# while its owner is down for a restart.
_RANDOM_FIRST, _RANDOM_LAST = 20000, 32000
_SEARCH_UPWARDS = 200


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do it: a port whose old connections linger in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


class _Holdings:
    """Ports that this process holds against others, each for one platform's memory file.

    The name of an abstract Unix socket belongs to one process, in all of the network namespace that
    ports belong to, too; and the kernel takes it back when the process ends, however that happens.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[Path, socket.socket]] = {}

    def hold(self, port: int, holder: Path) -> bool:
        """Hold a port; False where another platform does."""
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
        """Hold a port no longer."""
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
    """Chooses a port for each name, remembers the choice in a file, and keeps to it while free."""

    def __init__(self, memory: Path, *, random_ports: bool = False) -> None:
        self._memory = memory.resolve()
        self._random = random_ports
        self._remembered: dict[str, int] = {}
        if memory.exists():
            self._remembered = json.loads(memory.read_text())
        self._chosen: dict[str, int] = {}
        self.changed: set[str] = set()

    def __getitem__(self, name: str) -> int:
        """Return the port that was chosen for a name. Raises KeyError where none was."""
        return self._chosen[name]

    def choose(self, name: str, usual: int) -> int:
        """Return this name's port: the remembered one, else the usual one, else a free one."""
        if name in self._chosen:
            return self._chosen[name]
        remembered = self._remembered.get(name)
        chosen = set(self._chosen.values())
        # Others' remembered ports are left to them unless this is the one that was ours.
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
        """Leave all ports to others: nothing listens on them any more."""
        for port in self._chosen.values():
            _HOLDINGS.release(port, self._memory)

    def _hold_if_free(self, port: int) -> bool:
        """Hold a port if nobody else holds it or listens on it."""
        if not _HOLDINGS.hold(port, self._memory):
            return False
        if is_free(port):
            return True
        _HOLDINGS.release(port, self._memory)
        return False
