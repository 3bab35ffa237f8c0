"""TLS where the files of the server's authority and of the client's certificate are renewed.

Strimzi and the kubelet, cert-manager, or a person renew them by changing files. If a process read
them only once, the server would refuse its connections after its certificate has expired.
"""

import functools
import ssl
from pathlib import Path
from typing import Any, Self

import structlog

logger = structlog.get_logger(__name__)

_Signature = tuple[tuple[int, int, int], ...]


class RenewedContext(ssl.SSLContext):
    """A client's context that reads its files again before a handshake, if they have changed.

    If the new files cannot be used (such as a key that does not match the certificate, because only
    one of the two is there yet), that is logged, and the last good ones stay in use. Raises OSError
    (such as ssl.SSLError) if the files cannot be used at the start.
    """

    def __new__(cls, *_files: str) -> Self:
        """Make the outer context, which passes all handshakes on to the current one."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, authority: str, certificate: str = "", key: str = "") -> None:
        self._files = tuple(filter(None, (authority, certificate, key)))
        self._seen = _signature(self._files)
        self._current = _load(*self._files)
        self._refused: _Signature | None = None

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a handshake, as asyncio does."""
        return self._renewed().wrap_bio(*arguments, **named)

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """Begin a handshake on a socket."""
        return self._renewed().wrap_socket(*arguments, **named)

    def _renewed(self) -> ssl.SSLContext:
        try:
            # Before the files are read: a change after this line is noticed the next time.
            signature = _signature(self._files)
            if signature != self._seen:
                self._current = _load(*self._files)
                self._seen, self._refused = signature, None
                logger.info("certificates were read again", files=self._files)
        except OSError as error:
            self._say_once(error)
        return self._current

    def _say_once(self, error: OSError) -> None:
        try:
            refused = _signature(self._files)
        except OSError:
            refused = ()
        if refused != self._refused:
            self._refused = refused
            logger.error("certificates cannot be read again", files=self._files, error=repr(error))


@functools.cache
def renewed_context(authority: str, certificate: str, key: str) -> RenewedContext:
    """Return the context of these files, one for all clients of a process."""
    return RenewedContext(authority, certificate, key)


def _load(authority: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


def _signature(files: tuple[str, ...]) -> _Signature:
    """Return a value that changes with the files. It follows links: the kubelet changes those."""
    return tuple((it.st_ino, it.st_mtime_ns, it.st_size) for it in (Path(f).stat() for f in files))
