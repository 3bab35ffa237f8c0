"""Where in an account's history a decision is, rejections included.

Entries are numbered. A rejection has no entry, but it is in the log between records that have:
partition and offset show after which entry it was decided. An account changes its partition only by
growth, so its entries fall into runs of one partition each.
"""

from collections.abc import Sequence

import msgspec

from faults.ledger import Entry

Place = tuple[int, int, int, int]
"""Sorts decisions of one account: the entry before it, then what came after that entry."""


class PlacedEntry(msgspec.Struct, frozen=True):
    """An entry and the offset of the record that made it."""

    entry: Entry
    offset: int


class AccountOrder:
    """The order of one account's decisions in one round; entries are given by rising `seq`."""

    def __init__(self, entries: Sequence[PlacedEntry], seq_before: int) -> None:
        self._entries = entries
        self._seq_before = seq_before
        self._split = _split_partitions(entries)

    def of_entry(self, seq: int) -> Place:
        """Return the place of an entry."""
        return (seq, 0, 0, 0)

    def of_rejection(self, partition: int, offset: int) -> Place | None:
        """Return the place of a rejection; None where the log does not show it."""
        if partition in self._split:
            return None
        own = [it for it in self._entries if it.entry.partition == partition]
        if not own:
            return None
        later = next((it.entry.seq for it in own if it.offset > offset), None)
        if later is None:
            return (own[-1].entry.seq, 1, 0, offset)
        return (later - 1, 1, self._run(later - 1, partition), offset)

    def _run(self, seq: int, partition: int) -> int:
        """0 where the entry is of this partition, too, 1 where it is of the run before."""
        place = seq - self._seq_before - 1
        if not 0 <= place < len(self._entries):
            return 0
        return 0 if self._entries[place].entry.partition == partition else 1


def _split_partitions(entries: Sequence[PlacedEntry]) -> set[int]:
    """Return the partitions that the account left and came back to."""
    runs: list[int] = []
    for it in entries:
        if not runs or runs[-1] != it.entry.partition:
            runs.append(it.entry.partition)
    return {partition for partition in runs if runs.count(partition) > 1}
