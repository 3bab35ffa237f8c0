"""The sockets on which the API listens.

In a turn of its loop uvloop accepts one new connection of each listening socket. Under load a turn
takes tens of milliseconds: a proxy's thousand new connections waited more than ten seconds, while
open connections were served. Each of the handles below accepts one connection in a turn.
"""

import socket
from typing import Final

import uvicorn

_ACCEPTED_IN_A_TURN: Final = 32


def listening_sockets(config: uvicorn.Config) -> list[socket.socket]:
    """Return handles of one socket at the configured address, for `uvicorn.Server.run`.

    Ends the process if the address cannot be bound; uvicorn logs why.
    """
    first = config.bind_socket()
    return [first, *(first.dup() for _ in range(_ACCEPTED_IN_A_TURN - 1))]
