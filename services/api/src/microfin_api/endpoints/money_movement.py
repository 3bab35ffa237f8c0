"""Deposits, withdrawals and transfers."""

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from microfin_api.endpoints.change import Asked, Change, at_once
from microfin_api.http.bodies import (
    DepositBody,
    TransferBody,
    read_account_number,
    read_amount,
    read_body,
)
from microfin_api.http.notes import read_notes
from microfin_api.http.problems import Problem
from microfin_api.services import Services


async def deposit(request: Request, services: Services) -> Response:
    """Put money on one of the user's accounts."""
    return await _move_cash(request, services, "deposit")


async def withdraw(request: Request, services: Services) -> Response:
    """Take money from one of the user's accounts."""
    return await _move_cash(request, services, "withdraw")


async def _move_cash(
    request: Request, services: Services, kind: Literal["deposit", "withdraw"]
) -> Response:
    change = await Change.begin(request, services)
    body = await read_body(request, DepositBody, services.settings.body_limit)
    account, amount = read_account_number(body.account_number), read_amount(body.amount)
    return await change.move(
        Asked(kind, account, amount),
        read_notes(body.reference, body.metadata),
        at_once=at_once(request, services),
    )


async def transfer(request: Request, services: Services) -> Response:
    """Move money from one of the user's accounts to any account."""
    change = await Change.begin(request, services)
    body = await read_body(request, TransferBody, services.settings.body_limit)
    sender = read_account_number(body.sender_account_number)
    receiver = read_account_number(body.receiver_account_number)
    amount = read_amount(body.amount)
    notes = read_notes(body.reference, body.metadata)
    if sender == receiver:
        raise Problem("same_account")
    return await change.move(
        Asked("transfer", sender, amount, receiver), notes, at_once=at_once(request, services)
    )
