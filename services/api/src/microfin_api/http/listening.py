"""Where the API listens.

uvloop accepts one new connection of a listening socket in a turn of its loop. Under load a turn
takes tens of milliseconds, so that a proxy's thousand new connections waited more than ten seconds
while those that stood were served. Each of the handles below accepts one.
"""

import socket
from typing import Final

import uvicorn

_ACCEPTED_IN_A_TURN: Final = 32


def listening_sockets(config: uvicorn.Config) -> list[socket.socket]:
    """Return handles of one socket at the configured address, for `uvicorn.Server.run`.

    Ends the process where the address cannot be had; uvicorn logs why.
    """
    first = config.bind_socket()
    return [first, *(first.dup() for _ in range(_ACCEPTED_IN_A_TURN - 1))]
