"""Connections to one Redis node: commands go out together, answers come back in their order.

redis-py takes a connection for each command that waits, and finds out about each command anew; at
some hundred commands a second that is most of what Redis costs us. Here all who ask a node share
one connection, what they ask in one turn of the event loop is one write, and one timer watches over
the deadlines of all.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

import hiredis
import msgspec

Command = tuple[str | bytes | int, ...]

# hiredis' annotation allows for one word only.
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)

ErrorReply = hiredis.ReplyError
"""What stands among the replies where the node refused a command."""

_NOTHING: Final = False  # what hiredis says while a reply is not whole yet


Login = Callable[[], tuple[str | None, str | None]]
"""Tells the user and the password of now."""


class Address(msgspec.Struct, frozen=True):
    """Where a node is, and how one is let in."""

    host: str
    port: int
    user: str | None
    password: str | None
    secure: bool


class _Asked:
    """Commands that were sent together, and what has been answered to them so far."""

    __slots__ = ("answered", "deadline", "left", "replies")

    def __init__(self, count: int, deadline: float, answered: asyncio.Future[list[Any]]) -> None:
        self.left = count
        self.deadline = deadline
        self.answered = answered
        self.replies: list[Any] = []


class _Connection(asyncio.Protocol):
    """A connection on which commands are asked. Ends when one is not answered in time."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._asked: deque[_Asked] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._fault: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing can be asked on it any more."""
        return self._transport is None

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send `commands` and return their replies to come, `ErrorReply` among them.

        They end with an OSError (TimeoutError among them) where the connection does.
        """
        if self._transport is None:
            raise ConnectionResetError("the connection to Redis has ended")
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.extend(map(_pack, commands))
        deadline = self._loop.time() + self._timeout
        asked = _Asked(len(commands), deadline, self._loop.create_future())
        self._asked.append(asked)
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)
        return asked.answered

    def end(self, fault: Exception | None = None) -> None:
        """End the connection; what waits on it ends with `fault`."""
        self._fault = self._fault or fault
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be told by asyncio that the connection stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take in what has arrived."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._take(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self.end(ConnectionError(f"Redis was not understood: {error!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        """Be told by asyncio that the connection has ended."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        fault = self._fault or error or ConnectionResetError("Redis closed the connection")
        while self._asked:
            answered = self._asked.popleft().answered
            if not answered.done():
                answered.set_exception(fault)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def _take(self, reply: Any) -> None:
        asked = self._asked[0]
        asked.replies.append(reply)
        asked.left -= 1
        if asked.left == 0:
            self._asked.popleft()
            if not asked.answered.done():
                asked.answered.set_result(asked.replies)

    def _look_at_the_clock(self) -> None:
        """End the connection where the oldest question is overdue; look again when it may be."""
        self._timer = None
        if not self._asked:
            return
        deadline = self._asked[0].deadline
        if deadline <= self._loop.time():
            self.end(TimeoutError(f"Redis did not answer within {self._timeout} s"))
        else:
            self._timer = self._loop.call_at(deadline, self._look_at_the_clock)


class Subscription(_Connection):
    """A connection that hears one sharded channel. Ends when it has been silent for too long."""

    def __init__(self, timeout: float, silence: float) -> None:
        super().__init__(timeout)
        self._silence = silence
        self._heard = self._loop.time()
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._watch: asyncio.TimerHandle | None = None

    async def next(self) -> bytes | None:
        """Return the next message, None when there will be no more."""
        return await self._messages.get()

    def hear(self, channel: str) -> None:
        """Subscribe to `channel`; from now on nothing else can be asked."""
        self._unsent.append(_pack(("SSUBSCRIBE", channel)))
        self._send()
        self._listen_for_silence()

    def connection_lost(self, error: Exception | None) -> None:
        """Be told by asyncio that the connection has ended."""
        super().connection_lost(error)
        if self._watch is not None:
            self._watch.cancel()
        self._messages.put_nowait(None)

    def _take(self, reply: Any) -> None:
        if self._asked:  # that is how it begins: with the password
            super()._take(reply)
            return
        self._heard = self._loop.time()
        match reply:
            case [b"smessage", _, payload]:
                self._messages.put_nowait(payload)
            case [b"ssubscribe", *_]:
                pass
            case _:  # an error, or the channel has moved to another node
                self.end()

    def _listen_for_silence(self) -> None:
        if self._loop.time() - self._heard > self._silence:
            self.end()
        else:
            self._watch = self._loop.call_later(self._silence / 4, self._listen_for_silence)


_AnyConnection = TypeVar("_AnyConnection", bound=_Connection)


class Node:
    """One node. Connects when it is first asked, and again when the connection has ended.

    With `login` it is asked for user and password each time, in place of those in the address.
    """

    def __init__(self, address: Address, timeout: float, login: Login | None = None) -> None:
        self.name = f"{address.host}:{address.port}"
        self.paused_until = 0.0
        self._address = address
        self._login = login or (lambda: (address.user, address.password))
        self._timeout = timeout
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to `commands`. Raises OSError where the node does not answer."""
        connection = self._connection
        if connection is None or connection.ended:
            connection = await self._connect()
        return await connection.ask(commands)

    async def subscribe(self, channel: str, silence: float) -> Subscription:
        """Return a new connection that hears `channel`, and ends after `silence` seconds of it."""
        subscription = await self._open(lambda: Subscription(self._timeout, silence))
        subscription.hear(channel)
        return subscription

    def close(self) -> None:
        """End the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.end()

    async def _connect(self) -> _Connection:
        """Connect once for all who wait for it."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._open(lambda: _Connection(self._timeout)))
        connecting = self._connecting
        try:
            self._connection = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if connecting.cancelled() and task is not None and not task.cancelling():
                raise ConnectionAbortedError("the node has left the cluster") from None
            raise
        return self._connection

    async def _open(self, protocol: Callable[[], _AnyConnection]) -> _AnyConnection:
        address = self._address
        async with asyncio.timeout(self._timeout):
            _, connection = await asyncio.get_running_loop().create_connection(
                protocol,
                address.host,
                address.port,
                ssl=ssl.create_default_context() if address.secure else None,
            )
        user, password = self._login()
        if password is not None:
            [reply] = await connection.ask([("AUTH", user or "default", password)])
            if isinstance(reply, ErrorReply):
                connection.end()
                raise ConnectionRefusedError(f"Redis does not let us in: {reply}")
        return connection
