"""`microfin operation`."""

import re
from typing import Annotated, Any

import typer

from microfin.ledger.operation import Operation, Outcome
from microfin.postgres import queries
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import Refused, run
from microfin_tools.cli.output import (
    Json,
    amount_text,
    print_fields,
    print_json,
    print_rows,
    print_text,
    time_text,
)
from microfin_tools.cli.shards import reading_archives, reading_shards

operation = typer.Typer(no_args_is_help=True, help="Look operations up, on all shards.")

_LEG_ORDER = ("request", "credit", "refund")


def _operation_id(text: str) -> str:
    plain = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain, re.ASCII):
        raise typer.BadParameter("An operation's id has 32 hexadecimal digits.")
    return plain


@operation.command()
def show(
    operation: Annotated[
        str, typer.Argument(metavar="ID", parser=_operation_id, help="The operation's id.")
    ],
    json: Json = False,
) -> None:
    """Show an operation: its status, and the outcome of each of its legs.

    \b
    Example:
      microfin operation show 0190b2c3d4e5f60718293a4b5c6d7e8f
    """
    found, legs = run(_read(operation))
    fields = operation_fields(found)
    rows = [_leg(leg) for leg in legs]
    if json:
        print_json({**fields, "legs": rows})
        return
    print_fields(fields)
    print_text("")
    print_rows(rows, "")


def operation_fields(found: Operation) -> dict[str, Any]:
    """Return the fields of an operation that commands print."""
    return {
        "operation": found.operation,
        "kind": found.kind,
        "status": found.status,
        "reason": found.reason or None,
        "at_account": found.at_account or None,
        "needed": amount_text(found.needed, found.currency),
        "available": amount_text(found.available, found.currency),
        "account": found.account,
        "counterparty": found.counterparty or None,
        "amount": amount_text(found.amount, found.currency),
        "currency": found.currency or None,
        "seq": found.seq,
        "balance": amount_text(found.balance, found.currency),
        "reference": found.reference or None,
        "metadata": found.metadata,
        "user": found.user or None,
        "time": time_text(found.time),
    }


async def _read(operation: str) -> tuple[Operation, list[Outcome]]:
    settings = CommonSettings()
    async with reading_shards(settings) as pools, reading_archives(settings, pools) as archives:
        found = (await queries.operations(pools, [operation], archives)).get(operation)
    if found is None:
        raise Refused(
            f"No shard has decided operation {operation}. If it was sent just now, try again; if "
            "not, nobody knows it."
        )
    return found.operation, sorted(found.legs, key=lambda leg: _LEG_ORDER.index(leg.leg))


def _leg(outcome: Outcome) -> dict[str, Any]:
    return {
        "leg": outcome.leg,
        "status": outcome.status,
        "reason": outcome.reason or None,
        "account": outcome.account,
        "counterparty": outcome.counterparty or None,
        "amount": amount_text(outcome.amount, outcome.currency),
        "currency": outcome.currency or None,
        "seq": outcome.seq,
        "balance": amount_text(outcome.balance, outcome.currency),
        "log_offset": outcome.offset,
        "time": time_text(outcome.time),
    }
