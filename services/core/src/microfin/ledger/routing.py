"""Routing: which partition and which shard an account belongs to.

The partition is `murmur2(account number) mod N` as in Kafka's own clients
(`org.apache.kafka.clients.producer.internals.BuiltInPartitioner`), but N comes from microfin's
routing, never from the broker's metadata: when a topic grows, no account moves before the routing
changes.
"""

from functools import lru_cache
from typing import Final

import msgspec

_MULTIPLIER: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C
_32_BITS: Final = 0xFFFFFFFF


class Routing(msgspec.Struct, frozen=True):
    """The number of partitions that accounts are distributed over, from `generation` on."""

    generation: int
    partition_count: int


def murmur2(data: bytes) -> int:
    """Return the 32-bit murmur2 hash of `data` as `org.apache.kafka.common.utils.Utils` does."""
    length = len(data)
    value = _SEED ^ length
    aligned = length & ~3
    for start in range(0, aligned, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _32_BITS
        word = (word ^ word >> 24) * _MULTIPLIER & _32_BITS
        value = (value * _MULTIPLIER & _32_BITS) ^ word
    if aligned != length:
        value = (value ^ int.from_bytes(data[aligned:], "little")) * _MULTIPLIER & _32_BITS
    value = (value ^ value >> 13) * _MULTIPLIER & _32_BITS
    return value ^ value >> 15


@lru_cache(maxsize=262_144)
def _positive_hash(account: str) -> int:
    return murmur2(account.encode()) & 0x7FFFFFFF


def partition_of(account: str, partition_count: int) -> int:
    """Return the partition that `account` belongs to among `partition_count`."""
    return _positive_hash(account) % partition_count


def shard_of_partition(partition: int, shards: int) -> int:
    """Return the shard that holds `partition`. Partition counts are multiples of `shards`."""
    return partition % shards


def shard_of_account(account: str, shards: int) -> int:
    """Return the shard that holds `account`; it is the same under every routing."""
    return _positive_hash(account) % shards
