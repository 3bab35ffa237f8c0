"""The states that a volume left accounts in. An outcome holds a state only as a hash."""

from itertools import groupby
from typing import Any

from microfin.postgres.connections import Connection
from microfin_tools.archive.databases import NotArchivable
from microfin_tools.archive.volume_tables import home
from microfin_tools.audit.bodies import state_of

_SETS = """
SELECT o.account, o.partition, o.log_offset, o.seq, o.at, o.user_id, o.body_hash, a.state AS now
FROM {home}.outcomes o JOIN accounts a ON a.number = o.account
WHERE o.kind = 'set_state' AND o.status = 'settled' ORDER BY o.account
"""


async def states_set(ledger: Connection, volume: int) -> dict[str, str]:
    """Return the last state that a volume set, by account.

    Raises `NotArchivable` if an outcome sets no state that there is.
    """
    rows = await ledger.fetch(_SETS.format(home=home(volume)))
    return {
        account: _last_state(list(sets))
        for account, sets in groupby(rows, lambda it: it["account"])
    }


def _last_state(sets: list[Any]) -> str:
    """Return the state that an account was last set to.

    `seq` shows which change was the last, and within one partition the log does. Of changes of two
    partitions without an entry between them, the later one counts; if both have one time, the one
    that gives the account's present state.
    """
    newest = max(it["seq"] for it in sets)
    last: dict[int, Any] = {}
    for it in sets:
        known = last.get(it["partition"])
        if it["seq"] == newest and (known is None or it["log_offset"] > known["log_offset"]):
            last[it["partition"]] = it
    states = {_state(it): (it["at"], _state(it) == it["now"]) for it in last.values()}
    return max(states, key=lambda state: states[state])


def _state(row: Any) -> str:
    state = state_of(row["account"], row["user_id"], row["body_hash"])
    if state is None:
        raise NotArchivable(
            f"A change of the state of account {row['account']} has a hash of no state: run "
            "`microfin audit`, and archive when it finds nothing."
        )
    return state
