"""TLS to the nodes of a Redis Cluster, for our own connections and for redis-py's."""

import ssl
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import SSLConnection

from microfin.process.certificate_files import TlsFiles
from microfin.process.renewed_tls import renewed_context, tls_fault
from microfin.process.settings import CommonSettings

REDIS: Final = "Redis"
"""The name of Redis' nodes in the sentences and metrics of TLS."""


def tls_context(settings: CommonSettings) -> ssl.SSLContext | None:
    """Return the context of the settings, None where the URL is not `rediss://`.

    Raises OSError where the CA's file cannot be used.
    """
    if not settings.renewed_urls("redis")[0].startswith("rediss:"):
        return None
    return renewed_context(TlsFiles(REDIS, settings.redis_ca_file))


def redis_fault() -> str:
    """Return why TLS with a node has just failed, else nothing."""
    return tls_fault(REDIS)


def use_context(client: RedisCluster, context: ssl.SSLContext) -> None:
    """Let all connections of redis-py's `client` use `context`; call it before the first one.

    A context of its own would read the CA's file once, trust the system's authorities as well, and
    differ in strictness from one Python to another.
    """

    class Connection(SSLConnection):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.ssl_context.context = context

    client.connection_kwargs["connection_class"] = Connection  # of the nodes that it discovers
    for node in client.nodes_manager.startup_nodes.values():
        node.connection_class = Connection
