"""Who the client is when proxies stand in between: only those of the settings are believed."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.requests import Request


class TrustedProxies:
    """Reads X-Forwarded-For and X-Forwarded-Proto where a trusted proxy wrote them."""

    def __init__(self, networks: str) -> None:
        self._networks = [ip_network(network) for network in networks.split()]

    def client_of(self, request: Request) -> str:
        """Return the client's address; IPv6 clients by their /64, which is one household."""
        address = self._peer(request)
        hops = request.headers.get("x-forwarded-for", "").split(",")
        for hop in reversed(hops):
            if address is None or not self._trusted(address):
                break
            address = _address(hop.strip()) or address
        if isinstance(address, IPv6Address):
            return str(ip_network((address, 64), strict=False))
        return str(address)

    def scheme_of(self, request: Request) -> str:
        """Return `https` or `http`, as the client spoke it to the first of our proxies."""
        peer = self._peer(request)
        forwarded = request.headers.get("x-forwarded-proto")
        if forwarded and peer is not None and self._trusted(peer):
            return forwarded.rpartition(",")[2].strip().lower()
        return request.url.scheme

    @staticmethod
    def _peer(request: Request) -> IPv4Address | IPv6Address | None:
        return _address(request.client.host) if request.client else None

    def _trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._networks)


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
