"""Whether a Redis Cluster serves every key: its nodes' answers as a sentence and a metric.

A cache that does not serve fails no request. But it makes every answer slower, so somebody must
notice.
"""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import Gauge

from microfin.redis.node import ErrorReply

SERVING: Final = Gauge(
    "microfin_redis_serving", "1 while the Redis Cluster serves every key, as this process sees it."
)

_SLOTS: Final = 16_384


def judge(replies: Mapping[str, Any]) -> str:
    """Return what is wrong with a cluster, empty where nothing is wrong.

    `replies` are the primaries' replies to CLUSTER INFO, or the errors that came instead. A node
    that does not let us ask (an error reply) counts as well.
    """
    if not replies:
        return "no node of the Redis Cluster answers"
    for node, reply in replies.items():
        if isinstance(reply, bytes):
            facts = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
            if facts.get("cluster_state") != "ok":
                return f"Redis node {node} accepts no commands: its cluster is down"
            missing = _SLOTS - int(facts.get("cluster_slots_ok", _SLOTS))
            if missing:
                return f"{missing} of the Redis Cluster's {_SLOTS} slots are served by no node"
    # Only now, because those that answer know whether such a node is away or only out of our reach.
    for node, reply in replies.items():
        if isinstance(reply, BaseException) and not isinstance(reply, ErrorReply):
            return f"Redis node {node} does not answer"
    return ""
