"""The place on each shard at which the last audit without findings ended."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from microfin_tools.audit.checks import LAST_IN_ROTATION
from microfin_tools.audit.shard import AuditedShard

_CONTRA: Final = """
SELECT partition, contra, currency, balance::text FROM contra_balances
ORDER BY partition, contra, currency
"""


class ContraBalance(msgspec.Struct, frozen=True, array_like=True):
    """A contra balance; it may exceed 64 bits, so it is a text."""

    partition: int
    contra: str
    currency: str
    balance: str


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """The place on one shard at which the next audit starts.

    `next_offsets` has for each partition the first offset that was not audited. `in_transit` (on
    shard 0, for all shards) are the transfers that were still under way. Each audit checks some
    more accounts, in rotation; `looked_at` is the last of these.
    """

    next_offsets: dict[int, int]
    contra: list[ContraBalance]
    in_transit: list[str] = []
    looked_at: str = ""


async def current(shard: AuditedShard) -> Watermark:
    """Return the shard's current place, read in the open snapshot."""
    partitions = await shard.connection.fetch("SELECT partition, next_offset FROM partitions")
    contra = await shard.connection.fetch(_CONTRA)
    return Watermark(
        next_offsets={row["partition"]: row["next_offset"] for row in partitions},
        contra=[ContraBalance(*row) for row in contra],
    )


async def rotate(shard: AuditedShard, now: Watermark, then: Watermark) -> Watermark:
    """Return `now` with the last account of this audit's rotation, which goes on after `then`'s."""
    last = await shard.connection.fetchval(LAST_IN_ROTATION, then.looked_at)
    return msgspec.structs.replace(now, looked_at=last or "")


async def stored(shard: AuditedShard) -> Watermark | None:
    """Return the place where the last audit ended, read in the open snapshot."""
    state: str | None = await shard.connection.fetchval("SELECT state FROM audit_watermarks")
    return None if state is None else msgspec.json.decode(state, type=Watermark)


async def store(shard: AuditedShard, watermark: Watermark) -> None:
    """Store the place where this audit ended."""
    async with shard.connection.transaction():
        await shard.connection.execute(
            "INSERT INTO audit_watermarks (state) VALUES ($1::jsonb)"
            " ON CONFLICT (singleton)"
            " DO UPDATE SET state = excluded.state, audited_at = clock_timestamp()",
            msgspec.json.encode(watermark).decode(),
        )


def contra_columns(contra: Sequence[ContraBalance]) -> list[list[Any]]:
    """Return the balances as one list for each column."""
    return [
        [balance.partition for balance in contra],
        [balance.contra for balance in contra],
        [balance.currency for balance in contra],
        [balance.balance for balance in contra],
    ]
