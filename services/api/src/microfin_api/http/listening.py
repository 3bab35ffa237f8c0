"""The sockets on which the API listens.

In a turn of its loop uvloop accepts one new connection of each listening socket. Under load a turn
takes tens of milliseconds: a proxy's thousand new connections waited more than ten seconds, while
open connections were served. Each of the handles below accepts one connection in a turn.
"""

import errno
import socket
import sys
from typing import Final

import structlog
import uvicorn

logger = structlog.get_logger(__name__)

_ACCEPTED_IN_A_TURN: Final = 32
_ABSENT: Final = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))
"""The errors of a machine that has no IPv6."""


def listening_sockets(config: uvicorn.Config) -> list[socket.socket]:
    """Return handles of the sockets at the configured address, for `uvicorn.Server.run`.

    Without an address there are two, for all addresses of IPv4 and of IPv6. One socket for both
    would show clients of IPv4 under addresses that no list of proxies names (::ffff:192.0.2.1).
    Ends the process if an address cannot be bound, and logs why.
    """
    bound = [config.bind_socket()] if config.host else _bound_everywhere(config.port)
    return [handle for it in bound for handle in (it, *_more_handles(it))]


def _more_handles(bound: socket.socket) -> list[socket.socket]:
    return [bound.dup() for _ in range(_ACCEPTED_IN_A_TURN - 1)]


def _bound_everywhere(port: int) -> list[socket.socket]:
    """Return a socket for all addresses of IPv4, and one of IPv6 if the machine has it."""
    bound: list[socket.socket] = []
    try:
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
            try:
                bound.append(_bind(family, address, port))
            except OSError as error:
                if family == socket.AF_INET or error.errno not in _ABSENT:
                    raise
            # Where any port will do (0), both families get the same.
            port = bound[0].getsockname()[1]
    except OSError as error:
        logger.error("cannot listen", port=port, error=str(error))
        sys.exit(1)
    logger.info("listening", port=port, families=len(bound))
    return bound


def _bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    made.set_inheritable(True)
    return made
