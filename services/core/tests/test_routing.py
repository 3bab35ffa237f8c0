from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microfin.ledger.routing import (
    murmur2,
    partition_of,
    shard_of_account,
    shard_of_partition,
)

VECTORS = [
    line.split("\t")
    for line in (Path(__file__).parent / "golden" / "murmur2.tsv").read_text().splitlines()
]


def test_there_are_vectors() -> None:
    assert len(VECTORS) == 208


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0])
def test_hash_and_partition_are_those_of_kafkas_own_client(vector: list[str]) -> None:
    key, hashed, *partitions = vector
    assert murmur2(key.encode()) == int(hashed) & 0xFFFFFFFF
    for count, partition in zip((1, 3, 4, 6, 12, 100), partitions, strict=True):
        assert partition_of(key, count) == int(partition)


@given(st.text("0123456789", min_size=12, max_size=12), st.integers(1, 8), st.integers(1, 50))
def test_an_account_never_changes_its_shard(account: str, shards: int, factor: int) -> None:
    partition = partition_of(account, shards * factor)
    assert shard_of_partition(partition, shards) == shard_of_account(account, shards)
