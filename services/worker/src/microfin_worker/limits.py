"""The limits that the settings give a worker."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """The most commands in a batch, accounts in memory, and rows in the outbox.

    `interval` are the seconds from the start of a batch that held several commands to the start of
    the next one. `hold_look` are those between two looks for holds whose time is over.
    """

    batch: int = 500
    accounts: int = 100_000
    outbox: int = 10_000
    interval: float = 0.0
    hold_look: float = 5.0
