"""`microfin account`: look at an account, freeze, unfreeze and close it."""

import asyncio
import secrets
import time
from typing import Annotated, Any, Final

import typer

from microfin.ledger.account_number import is_account_number
from microfin.ledger.operation import AccountState, Operation, operation_id, same_body
from microfin.ledger.routing import shard_of_account
from microfin.ledger.wire import Command, body_hash
from microfin.postgres import queries, statements
from microfin.postgres.statements import StatementFilter, StatementLine
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import NO, Refused, run
from microfin_tools.cli.operation import operation_fields
from microfin_tools.cli.output import (
    Json,
    amount_text,
    print_fields,
    print_json,
    print_rows,
    print_text,
    time_text,
)
from microfin_tools.cli.sending import connected_producer
from microfin_tools.cli.shards import partition_under_routing, reading_archives, reading_shards

account = typer.Typer(
    no_args_is_help=True, help="Look at an account, freeze, unfreeze or close it."
)

_LOOKS_A_SECOND: Final = 20

_DEADLINE: Final = 60_000
"""Milliseconds after which a worker rejects a command that came late to the log."""


def _account_number(text: str) -> str:
    if not is_account_number(text):
        raise typer.BadParameter("An account number has 12 digits, with the right check digit.")
    return text


Number = Annotated[
    str, typer.Argument(metavar="NUMBER", parser=_account_number, help="The account number.")
]
Key = Annotated[
    str | None,
    typer.Option(
        help="A key of your own: if you repeat the command with it, it never acts twice. Without "
        "this option the key is random."
    ),
]
Wait = Annotated[int, typer.Option(min=0, help="Seconds to wait for the outcome; 0 does not wait.")]


@account.command()
def show(
    number: Number,
    entries: Annotated[int, typer.Option(min=0, help="How many of its last entries.")] = 10,
    json: Json = False,
) -> None:
    """Show an account and its last entries, as PostgreSQL has them.

    \b
    Examples:
      microfin account show 123456789015
      microfin account show 123456789015 --entries 0 --json
    """
    found, lines = run(_read(number, entries))
    fields = {
        "number": found.number,
        "owner": found.owner,
        "state": found.state,
        "balance": amount_text(found.balance, found.currency),
        "held": amount_text(found.held, found.currency),
        "available": amount_text(found.balance - found.held, found.currency),
        "currency": found.currency,
        "seq": found.seq,
        "version": found.version,
        "opened_at": time_text(found.opened_at),
        "read_at": time_text(found.read_at),
    }
    rows = [_line(line, found.currency) for line in lines]
    if json:
        print_json({**fields, "entries": rows})
        return
    print_fields(fields)
    if entries:
        print_text("")
        print_rows(rows, "It has no entries.")


@account.command()
def freeze(number: Number, key: Key = None, wait: Wait = 10, json: Json = False) -> None:
    """Freeze an account: nothing but refunds can be paid in, nothing can be paid out.

    Deposits, withdrawals, transfers, holds and captures are rejected, credits go back to their
    senders; holds can be released. The worker
    of the account's partition decides the command, in the order of the log.

    Needs MICROFIN_KAFKA and MICROFIN_DATABASES.

    \b
    Examples:
      microfin account freeze 123456789015
      microfin account freeze 123456789015 --key ticket-4711
    """
    _set_state(number, "frozen", key, wait, as_json=json)


@account.command()
def unfreeze(number: Number, key: Key = None, wait: Wait = 10, json: Json = False) -> None:
    """Open a frozen or closed account again.

    \b
    Example:
      microfin account unfreeze 123456789015
    """
    _set_state(number, "open", key, wait, as_json=json)


@account.command()
def close(number: Number, key: Key = None, wait: Wait = 10, json: Json = False) -> None:
    """Close an account whose balance is 0.

    A refund that is still under way is paid out to it even so; `microfin audit` lists closed
    accounts that hold money. `microfin account unfreeze` opens it again.

    \b
    Example:
      microfin account close 123456789015
    """
    _set_state(number, "closed", key, wait, as_json=json)


async def _read(number: str, entries: int) -> tuple[queries.StoredAccount, list[StatementLine]]:
    settings = CommonSettings()
    async with reading_shards(settings) as pools, reading_archives(settings, pools) as archives:
        shard = shard_of_account(number, len(pools))
        pool = pools[shard]
        found = await queries.account(pool, number)
        if found is None:
            raise Refused(f"There is no account {number}.")
        if not entries:
            return found, []
        page = await statements.entries(pool, number, StatementFilter(), entries, archives[shard])
        return found, page.lines


def _line(line: StatementLine, currency: str) -> dict[str, Any]:
    return {
        "seq": line.seq,
        "time": time_text(line.time),
        "kind": line.kind,
        "leg": line.leg,
        "amount": amount_text(line.amount, currency),
        "balance_after": amount_text(line.balance_after, currency),
        "counterparty": line.counterparty,
        "reference": line.reference,
        "operation": line.operation,
    }


def _set_state(
    number: str, state: AccountState, key: str | None, wait: int, *, as_json: bool
) -> None:
    operation = operation_id("", key or secrets.token_hex(16), "set_state", number)
    decided = run(_ask(number, state, operation, wait))
    if decided is None:
        _print_accepted(operation, as_json=as_json)
        return
    fields = operation_fields(decided)
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)
    if decided.status != "settled":
        raise typer.Exit(NO)


def _print_accepted(operation: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"operation": operation, "kind": "set_state", "status": "accepted"})
        return
    print_text(f"Operation {operation} was accepted. See `microfin operation show {operation}`.")


async def _ask(number: str, state: AccountState, operation: str, wait: int) -> Operation | None:
    """Send the command and return the decided operation; None without waiting for it."""
    settings = CommonSettings()
    async with reading_shards(settings) as pools:
        partition, generation = await partition_under_routing(pools, number)
        command = Command(
            kind="set_state",
            leg="request",
            operation=operation,
            account=number,
            state=state,
            generation=generation,
            deadline=int(time.time() * 1000) + _DEADLINE,
        )
        async with connected_producer(settings) as producer:
            await producer.send(partition, command)
        if not wait:
            return None
        for _ in range(wait * _LOOKS_A_SECOND):
            found = await queries.operations(pools, [operation])
            if found:
                return _decided(found[operation], command)
            await asyncio.sleep(1 / _LOOKS_A_SECOND)
    raise Refused(
        f"Operation {operation} is in the log, and the worker of partition {partition} has not "
        f"decided it within {wait} s: is it running? Try again with "
        f"`microfin operation show {operation}`."
    )


def _decided(found: queries.FoundOperation, command: Command) -> Operation:
    """Return the operation of `command`. Raises `Refused` if its key belongs to another one."""
    if not same_body(found.request, body_hash(command)):
        raise Refused(
            f"This key was used before for another change of account {command.account} (operation "
            f"{command.operation}), so nothing was done. Use a new key for every new change."
        )
    return found.operation
