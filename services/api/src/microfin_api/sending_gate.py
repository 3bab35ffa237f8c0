"""The one place that decides whether, where and by which routing a command may be sent now.

Holding the commands of accounts that a growth is about to move belongs here too.
"""

import time

import msgspec

from microfin.routing import partition_of
from microfin_api.leases import Leases
from microfin_api.problems import Problem


class Destination(msgspec.Struct, frozen=True):
    """Where a command goes, and the routing generation that says so."""

    partition: int
    generation: int


class SendingGate:
    """Lets commands through for as long as this process holds the lease of their shard."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    async def pass_through(self, account: str) -> Destination:
        """Return where a command for `account` must be sent, at once.

        Raises `Problem` where this process may not send: nothing has been done then.
        """
        lease = self._leases.of_account(account).valid()
        if lease is None:
            raise Problem("unavailable", "The database does not answer. Nothing was done.")
        return Destination(
            partition_of(account, lease.routing.partition_count), lease.routing.generation
        )

    async def until_order_is_certain(self, account: str, generation: int) -> None:
        """Return once a command that the broker has acknowledged just now keeps its place.

        That is: a lease renewal that began after now shows that `generation` is still the routing
        and that no growth is about to move `account`. Never returns where that cannot be shown any
        more, so wait with a deadline.
        """
        lease = self._leases.of_account(account)
        moment = time.monotonic()
        while True:
            renewed = await lease.sent_after(moment)
            if renewed.routing.generation == generation and not renewed.moves(account):
                return
            moment = renewed.sent
