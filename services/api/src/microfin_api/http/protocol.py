"""uvicorn's HTTP protocol, made strict: it never reads anything else as a request.

After an offer to upgrade, uvicorn with httptools treats the next bytes as another protocol, and
then reads them as requests: ADR 27 shows the consequences. Here such an offer is ignored (RFC 9110,
7.8). Bytes that cannot be read end the connection, after the answers that are owed. Heads and
bodies have limits of size and time.
"""

import asyncio
from typing import Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from microfin_api.http.problems import MEDIA_TYPE, Problem
from microfin_api.http.request_id import REQUEST_ID, new_request_id

MESSAGE_SECONDS: Final = 10.0
"""How long a head may take to arrive, and then a body."""

_HEAD_MOST: Final = 64 * 1024
_BODY_MOST: Final = 8 * 2**20  # far more than the application reads or discards
_OFFERED: Final = frozenset({b"upgrade", b"http2-settings"})
_METHODS: Final = "DELETE, GET, HEAD, POST"


class _Refusal(Exception):
    """This message is not served; `problem` is the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.kind.code)
        self.problem = problem


class StrictHttpProtocol(HttpToolsProtocol):
    """Serves HTTP/1.1 on one connection.

    If a body breaks off before its end, `body_fault` in the request's scope holds the problem's
    code for the application.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read: the connection is open."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._in_head = False
        self._in_body = False
        self._refusing = False  # nothing is read as a request any more
        self._incomplete = 0  # bytes of a head, or of a body, that has not ended
        self._begun_before = False  # whether it began before the bytes that came last
        self._timeout: asyncio.TimerHandle | None = None
        self.parser = httptools.HttpRequestParser(self)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop reading: the connection is closed."""
        self._refusing = True
        self._cancel_timeout()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read the next bytes: a portion of a message, or several messages."""
        if self._refusing:
            return
        self._unset_keepalive_if_required()
        self._begun_before = self._in_head or self._in_body
        try:
            self._feed(data)
        except _Refusal as error:
            self._refuse(error.problem)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.problem if isinstance(cause, _Refusal) else _unreadable())
        else:
            if self._in_head or self._in_body:
                self._wait_for_more(len(data) if self._begun_before else 0)

    def _feed(self, data: bytes) -> None:
        """Parse. If a head offers an upgrade, its message is parsed anew without the offer.

        httptools has no other way: after such a head its parser reads no body, but treats the next
        bytes as the next message.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                head = self._head_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(head)
                data = data[offer.args[0] :]
            else:
                return

    def _head_without_offer(self) -> bytes:
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise _Refusal(Problem("method_not_allowed", headers={"Allow": _METHODS}))
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                kept = b", ".join(token for token in tokens if token.lower() not in _OFFERED)
                if kept:
                    lines.append(b"connection: " + kept)
            elif name not in _OFFERED:
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    # Calls of the parser -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note that a message begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check a head, and begin its request."""
        if self.parser.should_upgrade():
            return  # it is parsed anew
        self._require_unambiguous_head()
        super().on_headers_complete()
        self._in_head, self._in_body = False, True
        self._reset_limits()
        self.headers = []  # trailers do not become headers of a request that is being served

    def on_message_complete(self) -> None:
        """End a message, and wait for the next one."""
        if self._in_head:
            return  # the message is parsed anew
        self._in_body = False
        self._reset_limits()
        super().on_message_complete()
        if self.cycle.response_complete and not self.pipeline:
            self._await_request()

    def _require_unambiguous_head(self) -> None:
        """Raise if a server before or behind us could read this head in another way."""
        version = self.parser.get_http_version()
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts != 1 if version == "1.1" else hosts > 1 or version != "1.0":
            raise _Refusal(_unreadable())
        if b"transfer-encoding" in names:
            codings = [value for name, value in self.headers if name == b"transfer-encoding"]
            if version != "1.1" or [coding.lower() for coding in codings] != [b"chunked"]:
                raise _Refusal(_unreadable())

    # Limits -------------------------------------------------------------------------------------

    def _await_request(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _wait_for_more(self, size: int) -> None:
        self._incomplete += size
        if self._in_head and self._incomplete > _HEAD_MOST:
            self._refuse(Problem("malformed_request", "The head is too large.", status=431))
        elif self._in_body and self._incomplete > _BODY_MOST:
            self._refuse(_unreadable())
        elif self._timeout is None:
            self._timeout = self.loop.call_later(MESSAGE_SECONDS, self._time_out)

    def _reset_limits(self) -> None:
        """Begin the limits anew: a head or a body has ended."""
        self._incomplete = 0
        self._begun_before = False
        self._cancel_timeout()

    def _cancel_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None

    def _time_out(self) -> None:
        self._timeout = None
        if self.flow.read_paused:
            self._wait_for_more(0)  # reading is paused, because of earlier requests
        elif not self.transport.is_closing():
            self._refuse(Problem("request_timeout"))

    # Refusing -----------------------------------------------------------------------------------

    def _refuse(self, problem: Problem) -> None:
        """Read nothing more, and hang up once all earlier requests are answered.

        An answer belongs to a request by its place: if sent at once, this one would be mistaken for
        the answer to a request that is still being served.
        """
        self._refusing = True
        self._cancel_timeout()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            if self._in_body:
                cycle.scope["body_fault"] = problem.kind.code  # type: ignore[typeddict-unknown-key]
                cycle.more_body = False
                cycle.message_event.set()
        elif self._in_body:
            self.transport.close()  # it was answered before its body had come
        else:
            self._write_problem(problem)

    def _write_problem(self, problem: Problem) -> None:
        identity = new_request_id()
        REQUEST_ID.set(identity)
        body = problem.body()
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "x-content-type-options": "nosniff",
            "connection": "close",
            "x-request-id": identity,
            **problem.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[problem.status], lines.encode(), body))
        self.transport.close()


def _unreadable() -> Problem:
    return Problem("malformed_request")
