"""What a failed TLS handshake means, as a sentence: which server, what is wrong, what to do."""

import ssl
import time
from typing import Final

from microfin.process.certificate_files import TlsFiles, readable

# X509_V_ERR_… of OpenSSL.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = frozenset((62, 63, 64))
_UNKNOWN_AUTHORITY: Final = frozenset((2, 18, 19, 20, 21, 24, 27))

_PLAINTEXT: Final = frozenset(
    ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG",
     "UNEXPECTED_EOF_WHILE_READING", "INVALID_ALERT", "UNEXPECTED_MESSAGE")
)  # fmt: skip


class TlsRefused(ssl.SSLError):
    """One side of a TLS connection refuses the other; the message is a sentence for people."""

    def __init__(self, sentence: str) -> None:
        super().__init__(1, sentence)

    def __str__(self) -> str:
        return str(self.strerror)


def explain(error: ssl.SSLError, files: TlsFiles, host: str, own_end: float | None) -> str:
    """Return the sentence for `error` of a connection to `host`.

    `own_end` is when this client's own certificate ends, None without one.
    """
    who = f"{files.server} at {host}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{who} is not believed: {_about_the_server(error, files, host)}"
    reason = error.reason or ""
    if "ALERT" in reason:
        return f"{who} {_about_us(reason, files, own_end)}"
    if reason in _PLAINTEXT:
        return does_not_speak_tls(files, host)
    return f"TLS with {who} failed: {error}"


def does_not_speak_tls(files: TlsFiles, host: str) -> str:
    """Return the sentence for a server that answers otherwise than by TLS, or not at all."""
    return (
        f"{files.server} at {host} does not complete a TLS handshake: does it speak TLS on this "
        "port?"
    )


def _about_the_server(error: ssl.SSLCertVerificationError, files: TlsFiles, host: str) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate, or its authority's, has expired"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; compare the clocks"
    if code in _OTHER_NAME:
        return f"its certificate is for another name than {host}"
    if code in _UNKNOWN_AUTHORITY:
        trusted = files.authority or "what the system trusts"
        return f"its certificate is of an unknown authority, none in {trusted}"
    return f"its certificate has a fault ({error.verify_message})"


def _about_us(reason: str, files: TlsFiles, own_end: float | None) -> str:
    if not files.certificate:
        return f"refuses TLS ({reason}); it may want a client certificate, and none is set"
    ended = ""
    if own_end is not None:
        verb = "ended" if own_end < time.time() else "ends"
        ended = f", which {verb} {readable(own_end)}"
    return f"does not accept this process's certificate {files.certificate}{ended} ({reason})"
