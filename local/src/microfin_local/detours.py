"""Ways between parts that lead through somebody's proxy, so that faults can be put on them.

Where no proxy was asked for (as always but in tests), every way is direct.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from microfin_local.files import write_atomically
from microfin_local.ports import Ports
from microfin_local.supervised import Program

NAME = "proxy"
_FILE = "detours.json"


@dataclass(frozen=True)
class Detour:
    """One way: the proxy listens on `port` and passes on to the part that listens on `target`."""

    name: str
    port: int
    target: int


class Detours:
    """All ways of one platform that lead through the proxy, by name (`api-pgbouncer`, …)."""

    def __init__(self, ports: Ports, *, wanted: bool) -> None:
        self.wanted = wanted
        self._ports = ports
        self._detours: dict[str, Detour] = {}

    def around(self, name: str, target: int) -> int:
        """Return the port to connect to for the way `name` to the part that listens on `target`."""
        if not self.wanted:
            return target
        if name not in self._detours:
            port = self._ports.choose(f"way {name}", target + 1000)
            self._detours[name] = Detour(name, port, target)
        return self._detours[name].port

    def __getitem__(self, name: str) -> Detour:
        """Return a way by name. Raises KeyError where there is none."""
        return self._detours[name]

    @property
    def all(self) -> list[Detour]:
        """All ways that were asked for so far."""
        return list(self._detours.values())

    @property
    def control(self) -> int:
        """The port on which the proxy takes orders."""
        return self._ports.choose("proxy control", 9999)

    def program(self, command: Sequence[str], folder: Path) -> Program:
        """Write the ways into a file, and return how to run the proxy, which is told the file."""
        path = folder / _FILE
        ways = [{"name": it.name, "port": it.port, "target": it.target} for it in self.all]
        write_atomically(path, json.dumps({"control": self.control, "ways": ways}, indent=2))
        return Program(name=NAME, arguments=(*command, str(path)), directory=folder)
