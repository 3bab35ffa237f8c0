"""Limits the commands per partition that are not acknowledged or not answered yet."""

import asyncio
from collections import defaultdict
from functools import partial

from microfin_api import metrics
from microfin_api.http.problems import Problem


class Backpressure:
    """Counts the commands under way and refuses those over the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._under_way: defaultdict[int, int] = defaultdict(int)

    def enter(self, partition: int) -> None:
        """Count one more command. Raises `Problem` if the partition has too many."""
        if partition not in self._under_way:
            count = partial(self._under_way.__getitem__, partition)
            metrics.WAITING.labels(partition).set_function(count)
        if self._under_way[partition] >= self._limit:
            raise Problem("overloaded")
        self._change(partition, 1)

    def leave(self, partition: int, sending: asyncio.Task[None]) -> None:
        """Count an answered command no longer, once its sending has ended too."""
        if sending.done():
            self._change(partition, -1)
        else:
            sending.add_done_callback(lambda _: self._change(partition, -1))

    def _change(self, partition: int, change: int) -> None:
        self._under_way[partition] += change
