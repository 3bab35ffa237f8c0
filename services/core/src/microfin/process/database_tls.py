"""How a database's URL wants TLS. Nothing but `sslmode=disable` means a connection without TLS.

libpq and asyncpg take a URL without `sslmode` for one that prefers TLS: an attacker in between has
only to say that the server has none, and receives the password. Here it means `verify-full`.
"""

import ssl
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from microfin.process.certificate_files import TlsFiles

POSTGRES: Final = "PostgreSQL"
"""The name of PostgreSQL and its pooler in the sentences and metrics of TLS."""

_MODES: Final = ("disable", "require", "verify-ca", "verify-full")
_USED: Final = frozenset(("sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation"))
_SYSTEM: Final = "system"  # as in libpq: the authorities that the system trusts


def database_tls(url: str) -> TlsFiles | Literal[False]:
    """Return how to speak TLS to the database of `url`; False if it says `sslmode=disable`.

    A connection through a socket file never uses TLS, whatever the URL says. Raises `ValueError`,
    which shows nothing of the URL's password, for parameters that cannot be kept.
    """
    parameters = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    mode = parameters.get("sslmode", "verify-full")
    if mode not in _MODES:
        raise ValueError(
            f"sslmode={mode} does not say whether TLS is used: write sslmode=verify-full, "
            "verify-ca, require, or disable for a connection without TLS"
        )
    unknown = sorted(name for name in parameters if name.startswith("ssl") and name not in _USED)
    if unknown:
        raise ValueError(f"microfin does not know {', '.join(unknown)} in a database's URL")
    if mode == "disable":
        return False
    authority = parameters.get("sslrootcert", "")
    return TlsFiles(
        POSTGRES,
        authority="" if authority == _SYSTEM else authority,
        certificate=parameters.get("sslcert", ""),
        key=parameters.get("sslkey", ""),
        # As libpq: with an authority's file, `require` verifies by it.
        verify=mode != "require" or bool(authority),
        check_name=mode == "verify-full",
        protocols=("postgresql",),
    )


def for_libpq(url: str) -> str:
    """Return `url` so that libpq does what `database_tls` says. Raises `ValueError` as it does."""
    files = database_tls(url)
    parts = urlsplit(url)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    if files is False or (files.authority and "sslmode" in parameters):
        return url
    parameters.setdefault("sslmode", "verify-full")
    if files.verify and not files.authority:
        parameters["sslrootcert"] = ssl.get_default_verify_paths().cafile or _SYSTEM
    return urlunsplit(parts._replace(query=urlencode(parameters, safe="/", quote_via=quote)))
