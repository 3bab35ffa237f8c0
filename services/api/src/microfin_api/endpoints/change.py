"""What all operations of clients have in common: their key, their id, and their answer."""

import contextlib
import re
from collections.abc import Iterator
from typing import Final, Literal

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import Kind, Operation, operation_id
from microfin.ledger.wire import Command, body_hash
from microfin_api import metrics
from microfin_api.commands.idempotency import (
    HEADER,
    REPLAYED,
    Key,
    read_key,
    refuse_other_use,
)
from microfin_api.commands.submission import Accepted, TraceHeaders, unknown_after
from microfin_api.commands.waiting import Settled
from microfin_api.endpoints.outcome_answers import rejection, settled_view
from microfin_api.http.answers import AcceptedOperation, answer, hold_id
from microfin_api.http.notes import Notes
from microfin_api.http.problems import Problem
from microfin_api.people.session_cache import Session
from microfin_api.phases import CommandPhases
from microfin_api.services import Services

logger = structlog.get_logger(__name__)

_TRACE_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Asked(msgspec.Struct, frozen=True):
    """What is to be done with an account's money; the fields are those of `Command`."""

    kind: Kind
    account: str
    amount: str = ""
    counterparty: str = ""
    hold: str = ""
    lifetime: int = 0
    last: bool = False


class Change:
    """One client's request to change something: who asks, and under which key."""

    def __init__(self, request: Request, services: Services, session: Session) -> None:
        self.request = request
        self.services = services
        self.user = session.user
        self.key: Key = read_key(request)

    @classmethod
    async def begin(cls, request: Request, services: Services) -> "Change":
        """Check who asks. Raises `Problem` for other origins, missing sessions and unfit keys."""
        services.origins.check(request, services.sessions)
        return cls(request, services, await services.sessions.require(request))

    async def open(self, currency: str, *, status: int, at_once: bool) -> Response:
        """Open an account in `currency`."""
        operation = operation_id(self.user, self.key.text, "open", "")
        command = Command(
            kind="open",
            leg="request",
            operation=operation,
            account=derive_account_number(operation, 0),
            user=self.user,
            currency=currency,
        )
        with self._key_in_problems():
            await self.services.account_cap.require_room(self.user, operation)
        return await self._perform(command, "", status=status, at_once=at_once)

    async def move(
        self, asked: Asked, notes: Notes, *, status: int = 200, at_once: bool
    ) -> Response:
        """Move money, or set it aside; `status` is that of a settled answer."""
        command = Command(
            kind=asked.kind,
            leg="request",
            operation=operation_id(self.user, self.key.text, asked.kind, asked.account),
            account=asked.account,
            user=self.user,
            counterparty=asked.counterparty,
            amount=asked.amount,
            reference=notes.reference,
            metadata=notes.metadata,
            hold=asked.hold,
            lifetime=asked.lifetime,
            last=asked.last,
        )
        return await self._perform(command, asked.account, status=status, at_once=at_once)

    async def _perform(
        self, command: Command, noted_account: str, *, status: int, at_once: bool
    ) -> Response:
        phases = CommandPhases(self.request.scope["begun"])
        self.request.scope["phases"] = phases  # the middleware knows when the request ends
        with self._key_in_problems():
            await refuse_other_use(
                self.services.redis, self.user, self.key, command.kind, noted_account
            )
            result = await self.services.submission.submit(
                command, at_once=at_once, trace=_trace(self.request), phases=phases
            )
            return self._answer_for(command, result, status)

    @contextlib.contextmanager
    def _key_in_problems(self) -> Iterator[None]:
        """Add the key to every problem: it may be one that we made."""
        try:
            yield
        except Problem as problem:
            problem.headers[HEADER] = self.key.header
            if problem.kind.code == "unknown":
                problem.members["idempotencyKey"] = self.key.text
            raise

    def _answer_for(self, command: Command, result: Settled | Accepted, status: int) -> Response:
        try:
            if isinstance(result, Accepted):
                return self._accepted_answer(command, result)
            return self._final_answer(result, status)
        except Problem:
            raise
        except Exception as error:  # it was sent: no answer may say that nothing was done
            raise unknown_after(error, command.operation) from error

    def _final_answer(self, settled: Settled, status: int) -> Response:
        operation = settled.operation
        metrics.operations(operation.kind, operation.status).inc()
        logger.debug("settled", operation=operation.operation, status=operation.status)
        headers = {HEADER: self.key.header}
        if settled.replayed:
            headers[REPLAYED] = "true"
        if operation.status != "settled":
            problem = rejection(operation)
            problem.headers |= headers
            raise problem
        if status == 201:
            headers["Location"] = _location(operation)
        return answer(settled_view(operation), status, headers)

    def _accepted_answer(self, command: Command, accepted: Accepted) -> Response:
        status: Literal["accepted", "in_transit"] = "in_transit" if accepted.debited else "accepted"
        metrics.operations(command.kind, status).inc()
        logger.debug("accepted", operation=accepted.operation, status=status)
        headers = {
            HEADER: self.key.header,
            "Location": self.services.at_tokens.location(
                accepted.operation, self.user, body_hash(command), accepted.appended
            ),
        }
        if prefers_async(self.request):
            headers["Preference-Applied"] = "respond-async"
        view = AcceptedOperation(operation_id=accepted.operation, status=status)
        return answer(view, 202, headers)


def _location(operation: Operation) -> str:
    """Return where what an operation made is shown."""
    if operation.kind == "hold":
        return f"/api/holds/{hold_id(operation.account, operation.operation)}"
    return f"/api/accounts/{operation.account}"


def at_once(request: Request, services: Services) -> bool:
    """Return whether an operation is answered before its outcome."""
    return services.settings.answer == "accepted" or prefers_async(request)


def prefers_async(request: Request) -> bool:
    """Return whether the client asks for an answer before the outcome (RFC 7240)."""
    preferences = ",".join(request.headers.getlist("prefer")).lower().split(",")
    return any(
        preference.partition(";")[0].strip() == "respond-async" for preference in preferences
    )


def _trace(request: Request) -> TraceHeaders:
    """Return the W3C trace context for the record's headers, if the client sent one."""
    parent = request.headers.get("traceparent", "")
    return [("traceparent", parent.encode())] if _TRACE_PARENT.fullmatch(parent) else []
