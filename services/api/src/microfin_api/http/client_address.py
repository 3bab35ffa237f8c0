"""The client's address behind proxies: only the proxies of the settings are believed.

It is read from X-Forwarded-For, and the scheme from X-Forwarded-Proto. `Forwarded` (RFC 7239) is
read only if neither came: the usual proxies write those two, and pass on a `Forwarded` that the
client itself has sent. A proxy that writes only `Forwarded` must remove the other two.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.requests import Request

_Address = IPv4Address | IPv6Address

_UNKNOWN: Final = "unknown"
_SCHEMES: Final = frozenset({"http", "https"})
_NODE = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[^:\]\[]*))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_HIGHEST_PORT: Final = 65535
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")*')
_PAIR = re.compile(r'\s*([\w!#$%&\'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[^\s",;]*)\s*(?:;|$)', re.ASCII)


class TrustedProxies:
    """Reads what trusted proxies wrote about the client."""

    def __init__(self, networks: str) -> None:
        self._networks = [ip_network(network) for network in networks.split()]

    def client_of(self, request: Request) -> str:
        """Return the client's address; IPv6 clients by their /64, which is one household.

        The hops are followed from us to the client, up to the first that is not a trusted proxy.
        An unreadable hop ends the search before it: everything beyond it may be invented.
        """
        address = self._peer(request)
        if address is None:
            return _UNKNOWN
        for hop in reversed(_hops(request)):
            if not self._trusted(address):
                break
            before = _node(hop)
            if before is None:
                break
            address = before
        if isinstance(address, IPv6Address):
            return str(ip_network((address, 64), strict=False))
        return str(address)

    def scheme_of(self, request: Request) -> str:
        """Return `https` or `http`: the scheme that the nearest trusted proxy reports."""
        headers = request.headers
        sent = headers.getlist("x-forwarded-proto")
        if sent or ("forwarded" in headers and "x-forwarded-for" not in headers):
            peer = self._peer(request)
            if peer is not None and self._trusted(peer):
                schemes = ",".join(sent).split(",") if sent else _forwarded(request, "proto")
                scheme = schemes[-1].strip().lower()
                if scheme in _SCHEMES:
                    return scheme
        return request.url.scheme

    @staticmethod
    def _peer(request: Request) -> _Address | None:
        return _address(request.client.host) if request.client else None

    def _trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _hops(request: Request) -> list[str]:
    """Return the hops as they were written, the nearest last."""
    headers = request.headers
    lines = headers.getlist("x-forwarded-for")
    if lines:
        return ",".join(lines).split(",")
    if "forwarded" in headers and "x-forwarded-proto" not in headers:
        return _forwarded(request, "for")
    return []


def _forwarded(request: Request, name: str) -> list[str]:
    """Return this parameter of each element of Forwarded; '' if an element has no sound one."""
    text = ",".join(request.headers.getlist("forwarded"))
    values: list[str] = []
    place = 0
    while place <= len(text):
        element = _ELEMENT.match(text, place)
        end = element.end() if element else place
        if end < len(text) and text[end] != ",":
            return [""]  # an open quote: nobody can know where the elements end
        values.append(_parameter(text[place:end], name))
        place = end + 1
    return values


def _parameter(element: str, name: str) -> str:
    found: list[str] = []
    place = 0
    while place < len(element):
        pair = _PAIR.match(element, place)
        if pair is None:
            return ""
        if pair[1].lower() == name:
            found.append(pair[2])
        place = pair.end()
    if len(found) != 1:
        return ""
    value = found[0]
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


@lru_cache(maxsize=4096)
def _node(text: str) -> _Address | None:
    """Return the address of a hop, which may have a port; None if it cannot be read."""
    text = text.strip()
    bare = _address(text)
    if bare is not None:
        return bare
    node = _NODE.fullmatch(text)
    if node is None or int(node["port"] or 0) > _HIGHEST_PORT:
        return None
    address = _address(node["v6"] or node["v4"] or "")
    if node["v6"] is None and not isinstance(address, IPv4Address):
        return None
    return address


@lru_cache(maxsize=4096)
def _address(text: str) -> _Address | None:
    if "%" in text:
        return None  # an address within a network link, which need not be ours
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
