"""Connections between components that lead through a proxy, so that tests can inject faults.

Only tests configure a proxy; without one, every connection is direct.
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
    """One connection: the proxy listens on `port` and forwards to the component on `target`."""

    name: str
    port: int
    target: int


class Detours:
    """All connections of one platform through the proxy, by name (`api-pgbouncer`, …)."""

    def __init__(self, ports: Ports, *, wanted: bool) -> None:
        self.wanted = wanted
        self._ports = ports
        self._detours: dict[str, Detour] = {}

    def around(self, name: str, target: int) -> int:
        """Return the port to connect to for the connection `name` to the port `target`."""
        if not self.wanted:
            return target
        if name not in self._detours:
            port = self._ports.choose(f"way {name}", target + 1000)
            self._detours[name] = Detour(name, port, target)
        return self._detours[name].port

    def __getitem__(self, name: str) -> Detour:
        """Return a connection by name. Raises KeyError if there is none."""
        return self._detours[name]

    @property
    def all(self) -> list[Detour]:
        """All connections so far."""
        return list(self._detours.values())

    @property
    def control(self) -> int:
        """The port on which the proxy receives orders."""
        return self._ports.choose("proxy control", 9999)

    def program(self, command: Sequence[str], folder: Path) -> Program:
        """Write the connections into a file, and return how to run the proxy with that file."""
        path = folder / _FILE
        ways = [{"name": it.name, "port": it.port, "target": it.target} for it in self.all]
        write_atomically(path, json.dumps({"control": self.control, "ways": ways}, indent=2))
        return Program(name=NAME, arguments=(*command, str(path)), directory=folder)
