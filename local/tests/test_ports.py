import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from microfin_local.configuration import Configuration
from microfin_local.platform import Platform
from microfin_local.ports import Ports, is_free


def _listener() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(1)
    return server


def _port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with _listener() as server:
        port = _port_of(server)
        assert not is_free(port)
    assert is_free(port)


def test_the_usual_port_is_chosen_if_it_is_free_and_else_another(tmp_path: Path) -> None:
    with _listener() as server:
        used = _port_of(server)
        chosen = Ports(tmp_path / "ports.json").choose("component", used)
        assert chosen > used
        assert is_free(chosen)
    assert Ports(tmp_path / "other.json").choose("component", used) == used


def test_two_names_never_share_a_port(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json", random_ports=True)
    usual = ports.choose("first", 1)
    assert len({ports.choose(name, usual) for name in ("first", "second", "third")}) == 3


def test_a_choice_is_remembered_while_its_port_is_free(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    first = Ports(memory, random_ports=True)
    chosen = first.choose("component", 1)
    assert first.changed == {"component"}
    again = Ports(memory, random_ports=True)
    assert again.choose("component", 1) == chosen
    assert again.changed == set()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", chosen))
        server.listen(1)
        moved = Ports(memory, random_ports=True)
        assert moved.choose("component", 1) != chosen
        assert moved.changed == {"component"}


def test_random_ports_are_none_that_outgoing_connections_use(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json", random_ports=True)
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(ports.choose(str(n), 5432) < first_outgoing for n in range(20))


def test_a_chosen_port_is_nobody_elses_though_nothing_listens_yet(tmp_path: Path) -> None:
    with _listener() as server:
        usual = _port_of(server)
    first, second = Ports(tmp_path / "first.json"), Ports(tmp_path / "second.json")
    assert first.choose("component", usual) == usual
    assert second.choose("component", usual) != usual
    first.release()
    assert Ports(tmp_path / "third.json").choose("component", usual) == usual


def test_it_is_not_another_processes_either_for_as_long_as_it_runs(tmp_path: Path) -> None:
    with _listener() as server:
        usual = _port_of(server)
    choose = (
        "import sys\nfrom pathlib import Path\nfrom microfin_local.ports import Ports\n"
        "ports = Ports(Path(sys.argv[1]))\n"
        "print(ports.choose('component', int(sys.argv[2])), flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", choose, str(tmp_path / "other.json"), str(usual)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert int(other.stdout.readline()) == usual
        assert Ports(tmp_path / "ours.json").choose("component", usual) != usual
        other.stdin.close()
    assert Ports(tmp_path / "ours, later.json").choose("component", usual) == usual


@pytest.mark.usefixtures("real_components")
async def test_two_platforms_that_start_at_one_time_share_no_port(tmp_path: Path) -> None:
    forms = [
        Configuration(state=tmp_path / name, components=frozenset({"redis"}))
        for name in ("one", "two")
    ]
    platforms = [Platform(form) for form in forms]
    try:
        await asyncio.gather(*(platform.start() for platform in platforms))
        ports = [url for platform in platforms for url in platform.endpoints.redis]
        assert len(set(ports)) == 6
    finally:
        await asyncio.gather(*(platform.stop() for platform in platforms))
