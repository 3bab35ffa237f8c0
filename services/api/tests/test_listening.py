"""The API's sockets: one family or both, and always the client's own address."""

import errno
import socket

import pytest
import uvicorn

from microfin_api.http import listening
from microfin_api.http.listening import listening_sockets


async def _application(*_: object) -> None: ...


def addresses(host: str, port: int = 0) -> set[tuple[int, str]]:
    """Return family and address of the sockets, after somebody has connected to each."""
    sockets = listening_sockets(uvicorn.Config(_application, host=host, port=port))
    try:
        found = {(it.family, it.getsockname()[0]) for it in sockets}
        ports = {it.getsockname()[1] for it in sockets}
        assert len(ports) == 1
        for one in {it.family: it for it in sockets}.values():
            one.listen()
            local = "::1" if one.family == socket.AF_INET6 else "127.0.0.1"
            with socket.create_connection((local, *ports), timeout=5):
                accepted, client = one.accept()
                accepted.close()
            assert client[0] == local
    finally:
        for it in sockets:
            it.close()
    return found


def test_without_an_address_it_listens_on_all_of_both_families() -> None:
    everywhere = {(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")}  # noqa: S104 - a test
    assert addresses("") == everywhere


def test_with_an_address_it_listens_only_there() -> None:
    assert addresses("127.0.0.1") == {(socket.AF_INET, "127.0.0.1")}


@pytest.mark.parametrize("why", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, why: int) -> None:
    bind = listening._bind

    def without_ipv6(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(why, "no IPv6")
        return bind(family, address, port)

    monkeypatch.setattr(listening, "_bind", without_ipv6)
    assert addresses("") == {(socket.AF_INET, "0.0.0.0")}  # noqa: S104 - a test


def test_a_port_that_somebody_has_ends_the_process() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", 0))
        taken.listen()
        with pytest.raises(SystemExit):
            addresses("", taken.getsockname()[1])
