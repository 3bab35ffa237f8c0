"""The times of leases and growths: how API processes learn of a new routing before it is used.

An API process sends commands to a shard only by a *lease*: a renewal, committed on that shard,
that returned the routing. A growth writes its intent, waits, marks where the old partitions end
(the *cuts*), and activates the new routing. That no process sends by the old routing behind a cut
follows from a chain of times:

1. A lease ends `LEASE_SECONDS` after its renewal was sent, by the process's monotonic clock.
   `GROWTH_WAIT_SECONDS` after the intent was committed, every lease from before it has ended: each
   process that sends has read the intent. Only then are the cuts marked.
2. A process that has read the intent holds the commands of the accounts that move, for
   `HOLD_SECONDS` at most. Then it sends them by a lease that is up to `LEASE_SECONDS` old. When
   that lease was renewed, the intent must already have been too old to be activated.
3. An activation begins while its intent is younger than `ACTIVATION_SECONDS`. It waits
   `ACTIVATION_LOCK_SECONDS` for each lock, and gives up if the intent has become
   `STALE_INTENT_SECONDS` old by then. Such an intent is left behind, and another growth may
   replace it.
4. A growth that passes its cuts within `CUT_SECONDS` must still be in time to activate.

`services/core/tests/test_lease.py` checks these rules. They come from ADR 22 (leases), ADR 24
(cuts) and invariant 7 in docs/guide/invariants.md. The order of an account's commands does not rest
on times alone: a process that stood still may send behind a cut. Workers send such a command on to
its new partition, and the API answers no 202 for it before a later renewal shows the same routing.
"""

from typing import Final

LEASE_SECONDS: Final = 1.0
"""How long a process may send by a lease. Every growth waits for it, so it is short (ADR 22)."""

RENEWAL_SECONDS: Final = 0.25
"""How often a lease is renewed, so that one late renewal does not end it."""

IDLE_RENEWAL_SECONDS: Final = 0.45
"""How often a lease is renewed that nobody has used for a while, if the database answers at once.

Who needs a lease that has ended waits for a renewal, so a late one costs time and refuses nothing.
"""

CLOCK_RATE_TOLERANCE: Final = 0.05
"""How many seconds the monotonic clocks of two machines may drift apart in one second."""

GROWTH_WAIT_SECONDS: Final = LEASE_SECONDS * (1 + CLOCK_RATE_TOLERANCE)
"""How long a growth waits after its intent is committed, before it marks the cuts."""

CUT_SECONDS: Final = 3.0
"""How long a growth may take to mark the partitions and to see them pass: commands are held."""

ACTIVATION_SECONDS: Final = 8
"""Age of an intent, by the database's clock, after which it is not activated any more."""

ACTIVATION_LOCK_SECONDS: Final = 1
"""How long a growth waits for one lock."""

STALE_INTENT_SECONDS: Final = 9
"""Age from which an intent counts as left behind."""

HOLD_SECONDS: Final = 10.0
"""How long a process holds commands for an intent that is neither activated nor withdrawn."""
