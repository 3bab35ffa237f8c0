"""Clients that go through the steps of their plan, and remember the answers."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from zlib import crc32

from msgspec.structs import replace

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import operation_id
from microfin.ledger.wire import Command
from microfin_api.commands.submission import Accepted
from microfin_api.http.problems import Problem
from simulation.history import History
from simulation.journal import Asked, Journal, Response
from simulation.plan import PlannedClient, Step
from simulation.processes import ApiProcess, Disconnected
from simulation.virtual_loop import VirtualLoop

_ATTEMPTS = 6
_CLIENT_TIMEOUT = 13.0  # seconds until a client gives a silent API up


class Client:
    """One client. `look` is called with every answer, at the moment that it comes."""

    def __init__(
        self,
        plan: PlannedClient,
        apis: Sequence[ApiProcess],
        journal: Journal,
        history: History,
        loop: VirtualLoop,
        look: Callable[[Asked, Response], None],
        seed: int,
    ) -> None:
        self._plan = plan
        self._apis = apis
        self._journal = journal
        self._history = history
        self._loop = loop
        self._look = look
        self._random = Random(f"{plan.name} {seed}")

    async def run(self) -> None:
        """Go through all steps."""
        for step in self._plan.steps:
            await asyncio.sleep(step.after)
            await self._take(step)

    async def _take(self, step: Step) -> None:
        command = command_of(step)
        if step.twice:
            asking = [self._ask_until_answered(step, command) for _ in range(2)]
            await asyncio.gather(*asking)
        else:
            await self._ask_until_answered(step, command)
        if step.amended:
            amount = str(int(command.amount or "1") + 1)
            await self._ask(step, replace(command, amount=amount), amended=True)
        if step.again:
            await self._ask_until_answered(step, command)

    async def _ask_until_answered(self, step: Step, command: Command) -> None:
        """Repeat the request, with its key, until the answer says something."""
        for _ in range(_ATTEMPTS):
            response = await self._ask(step, command, amended=False)
            if response.kind in ("final", "accepted", "key_reused"):
                return
            await asyncio.sleep(0.02 + self._random.random() * 0.3)

    async def _ask(self, step: Step, command: Command, *, amended: bool) -> Response:
        api = self._random.choice(self._apis)
        asked = self._journal.ask(command, self._loop.time(), amended=amended)
        self._history.note(
            self._plan.name, "asks {}: {} {} on {}{}{}", api.process.name, describe(command),
            command.operation, command.account, " at once" if step.at_once else "",
            " with another body" if amended else "",
        )  # fmt: skip
        response = await self._wait_for_answer(api, step, command, amended=amended)
        self._journal.answer(asked, response)
        self._history.note(
            self._plan.name, "is answered about {}: {}{}", command.operation, response.kind,
            _details(response),
        )  # fmt: skip
        self._look(asked, response)
        return response

    async def _wait_for_answer(
        self, api: ApiProcess, step: Step, command: Command, *, amended: bool
    ) -> Response:
        try:
            async with asyncio.timeout(_CLIENT_TIMEOUT):
                answer = await api.ask(command, at_once=step.at_once)
        except Problem as problem:
            return Response(self._journal.turn(), problem.kind.code, amended)
        except (Disconnected, TimeoutError):
            return Response(self._journal.turn(), "disconnected", amended)
        if isinstance(answer, Accepted):
            return Response(self._journal.turn(), "accepted", amended)
        return Response(self._journal.turn(), "final", amended, answer.operation, answer.replayed)


def command_of(step: Step) -> Command:
    """Return the command that the API makes of a request, but for how it travels."""
    account = "" if step.kind == "open" else step.account
    operation = operation_id(step.user, step.key, step.kind, account)
    return Command(
        kind=step.kind,
        leg="request",
        operation=operation,
        account=derive_account_number(operation, 0) if step.kind == "open" else step.account,
        user=step.user,
        counterparty=step.to,
        amount=step.amount,
        currency=step.currency,
        state=step.state,
        hold=operation_id(step.user, step.hold, "hold", step.account) if step.hold else "",
        lifetime=step.lifetime,
        last=step.last,
        **_notes(step),
    )


def _notes(step: Step) -> dict[str, Any]:
    """Return what half of the operations that move money carry: it follows from their key."""
    if step.kind in ("open", "set_state") or crc32(step.key.encode()) % 2:
        return {}
    return {"reference": f"for {step.key}", "metadata": {"key": step.key}}


def describe(command: Command) -> str:
    """Return what a command does, in a word or two."""
    if command.kind == "set_state":
        return f"set_state {command.state}"
    to = f" to {command.counterparty}" if command.counterparty else ""
    return f"{command.kind} {command.amount}{to}".strip()


def _details(response: Response) -> str:
    operation = response.operation
    if operation is None:
        return ""
    balance = "" if operation.balance is None else f", balance {operation.balance}"
    seq = "" if operation.seq is None else f", seq {operation.seq}"
    reason = f" ({operation.reason})" if operation.reason else ""
    return f", {operation.status}{reason}{balance}{seq}{', replayed' if response.replayed else ''}"
