"""Who the client is when proxies stand in between: only those of the settings are believed.

What they say is read from X-Forwarded-For and X-Forwarded-Proto. `Forwarded` (RFC 7239) is read
only where neither of those came: the usual proxies write those, and pass a `Forwarded` of the
client's own on. A proxy that writes `Forwarded` alone must remove the others.
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

        The hops are followed from us to the client, up to the first that is no trusted proxy. One
        that cannot be read ends the way before it: whatever stands further may be invented.
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
        """Return `https` or `http`, as the client spoke it to the last of our proxies."""
        headers = request.headers
        told = headers.getlist("x-forwarded-proto")
        if told or ("forwarded" in headers and "x-forwarded-for" not in headers):
            peer = self._peer(request)
            if peer is not None and self._trusted(peer):
                schemes = ",".join(told).split(",") if told else _forwarded(request, "proto")
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
    """Return the parameter of each element of Forwarded; '' where it has none that is sound."""
    text = ",".join(request.headers.getlist("forwarded"))
    values: list[str] = []
    place = 0
    while place <= len(text):
        element = _ELEMENT.match(text, place)
        end = element.end() if element else place
        if end < len(text) and text[end] != ",":
            return [""]  # a quote that nobody closes: where elements end is anybody's guess
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
    """Return the address of a hop, which may have a port; None where it cannot be read."""
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
        return None  # an address within some link, which is not ours
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
