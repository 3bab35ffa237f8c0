"""How many records the next batch may have, and how a batch that the database refuses is narrowed.

A refusal is an answer: nothing was written, the claim is still valid, and the same records are
decided again at once (ADR 23).
"""


class BatchSize:
    """The size of one worker's batches; at most `most` records.

    `limit` is the most records of the next batch. `condemned` are the offsets of records that the
    database refused alone: they go to quarantine, whatever they carry. `memory_is_doubtful` is set
    from the first refusal until decisions from memory have been committed again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = most
        self.condemned: set[int] = set()
        self.memory_is_doubtful = False

    def narrow(self, offset: int, size: int) -> None:
        """Halve the batch of `size` records from `offset`; condemn a record that is alone."""
        if size > 1:
            self.limit = max(1, size // 2)
        else:
            self.condemned.add(offset)

    def committed(self, *, looks_up: bool) -> None:
        """Note a commit. `looks_up`: the next batch does not rely on memory alone.

        After a record that was condemned the next one is tried alone, since more of its kind may
        follow; the size grows again after the first that is accepted.
        """
        self.memory_is_doubtful = self.memory_is_doubtful and looks_up
        if self.condemned:
            self.condemned.clear()
        else:
            self.limit = min(self._most, self.limit * 2)
