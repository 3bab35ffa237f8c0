"""TLS where the files of the server's authority and of the client's certificate are renewed.

Strimzi and the kubelet, cert-manager, or a person renew them by changing files. If a process read
them only once, the server would refuse its connections after its certificate has expired.

A refusal is an error whose message is a sentence for people, whichever client library meets it. It
is logged when it begins, and `tls_fault` gives it to those who report what a process waits for.
"""

import functools
import ssl
import time
from collections.abc import Iterable
from typing import Any, Final, Self

import structlog
from prometheus_client import Gauge, Metric

from microfin.process.certificate_files import Signature, TlsFiles
from microfin.process.tls_refusals import TlsRefused, does_not_speak_tls, explain

logger = structlog.get_logger(__name__)

_FRESH: Final = 30.0  # seconds; a client that is refused tries again more often

_AGAIN: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Watched(ssl.SSLObject):
    """One connection. Reports to its context whether the server accepts it, and whom it refuses.

    A server of TLS 1.3 refuses a client's certificate only after the handshake, instead of its
    first data.
    """

    outer: "RenewedContext"
    _heard = False

    def do_handshake(self) -> None:
        """Take the handshake a step further."""
        self.outer.began(str(self.server_hostname))
        try:
            super().do_handshake()
        except _AGAIN:
            raise
        except ssl.SSLError as error:
            raise self.outer.refused(error, str(self.server_hostname)) from error
        self.outer.completed(str(self.server_hostname))

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - ssl's signature
        """Read what the server has sent."""
        if self._heard:
            return super().read(len, buffer)
        try:
            found = super().read(len, buffer)
        except (*_AGAIN, ssl.SSLZeroReturnError):
            raise
        except ssl.SSLError as error:
            raise self.outer.refused(error, str(self.server_hostname)) from error
        if found:
            self._heard = True
            self.outer.accepted(str(self.server_hostname))
        return found


class RenewedContext(ssl.SSLContext):
    """A client's context that reads its files again before a handshake, if they have changed.

    If the new files cannot be used (such as a key that does not match the certificate, because only
    one of the two is there yet), that is logged, and the last good ones stay in use. Raises OSError
    (such as ssl.SSLError) if the files cannot be used at the start.
    """

    def __new__(cls, _files: TlsFiles) -> Self:
        """Make the outer context, which passes all handshakes on to the current one."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._seen = files.signature()
        self._refused: Signature | None = None
        self._use()
        self._faults: dict[str, tuple[float, str]] = {}
        self._logged: dict[str, str] = {}
        self._spoke: set[str] = set()

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a handshake, as asyncio does."""
        watched = self._renewed().wrap_bio(*arguments, **named)
        if isinstance(watched, _Watched):
            watched.outer = self
        return watched

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """Begin a handshake on a socket."""
        return self._renewed().wrap_socket(*arguments, **named)

    def ends(self) -> dict[tuple[str, str], float]:
        """Return `TlsFiles.ends` of the certificates in use; reads changed files first."""
        self._renewed()
        return self._ends

    # What connections report ------------------------------------------------------------------

    def began(self, host: str) -> None:
        """Note that a handshake with `host` goes on; it may end without an error of TLS.

        A host that has completed one before speaks TLS; there, the network or we ended it.
        """
        now = time.monotonic()
        known = self._faults.get(host)
        if host not in self._spoke and (known is None or known[0] < now - _FRESH):
            self._faults[host] = (now, does_not_speak_tls(self.files, host))

    def completed(self, host: str) -> None:
        """Note that `host` speaks TLS and is believed."""
        if host not in self._spoke:
            self._spoke.add(host)
            self._faults.pop(host, None)

    def refused(self, error: ssl.SSLError, host: str) -> TlsRefused:
        """Note a refusal, log it where it is new, and return it as a sentence."""
        own = min((end for (role, _), end in self._ends.items() if role == "client"), default=None)
        sentence = explain(error, self.files, host, own)
        self._faults[host] = (time.monotonic(), sentence)
        if self._logged.get(host) != sentence:
            self._logged[host] = sentence
            logger.error("TLS is refused", server=self.files.server, host=host, fault=sentence)
        return TlsRefused(sentence)

    def accepted(self, host: str) -> None:
        """Note that `host` has sent data."""
        self._faults.pop(host, None)
        if self._logged.pop(host, None):
            logger.info("TLS is accepted", server=self.files.server, host=host)

    def fault(self) -> tuple[float, str]:
        """Return the last refusal and its time if it is a recent one, else an empty text."""
        oldest = time.monotonic() - _FRESH
        self._faults = {host: it for host, it in self._faults.items() if it[0] > oldest}
        return max(self._faults.values(), default=(0.0, ""))

    # The files ------------------------------------------------------------------------------

    def _renewed(self) -> ssl.SSLContext:
        try:
            # Before the files are read: a change after this line is noticed the next time.
            signature = self.files.signature()
            if signature != self._seen:
                self._use()
                self._seen, self._refused = signature, None
                logger.info("certificates were read again", files=sorted(self._names()))
        except OSError as error:
            self._say_once(error)
        return self._current

    def _use(self) -> None:
        """Use the files as they are now."""
        current, ends = self.files.load(), self.files.ends()
        current.sslobject_class = _Watched
        self._current, self._ends = current, ends

    def _names(self) -> Iterable[str]:
        return (file for _, file in self._ends)

    def _say_once(self, error: OSError) -> None:
        try:
            refused = self.files.signature()
        except OSError:
            refused = ()
        if refused != self._refused:
            self._refused = refused
            logger.error(
                "certificates cannot be read again", files=sorted(self._names()), error=repr(error)
            )


_contexts: list[RenewedContext] = []


@functools.cache
def renewed_context(files: TlsFiles) -> RenewedContext:
    """Return the context of these files, one for all clients of a process."""
    context = RenewedContext(files)
    _contexts.append(context)
    return context


def tls_fault(server: str) -> str:
    """Return why TLS with a kind of server (`TlsFiles.server`) has just failed; else nothing."""
    faults = (context.fault() for context in _contexts if context.files.server == server)
    return max(faults, default=(0.0, ""))[1]


class _Ends(Gauge):
    """Shows when the certificates end that this process uses.

    It looks at the files when it is asked: a connection may last for months, and a certificate that
    was renewed meanwhile is used by the next one.
    """

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        self.clear()
        for context in _contexts:
            for (role, file), end in context.ends().items():
                self.labels(context.files.server.lower(), role, file).set(end)
        return super().collect()


_ENDS: Final = _Ends(
    "microfin_certificate_end_timestamp_seconds",
    "When a certificate that this process uses ends, in seconds since the Unix epoch.",
    ["server", "role", "file"],
)
