"""The state of an operation."""

import re
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from microfin.postgres import queries
from microfin_api.endpoints.outcome_answers import operation_view
from microfin_api.http.answers import OperationView, answer
from microfin_api.http.problems import Problem
from microfin_api.services import Services

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


async def show_operation(request: Request, services: Services) -> Response:
    """Show one of the user's operations, from all shards and their archives.

    An operation that no partition has decided yet is `accepted` for a client that sends the `at` of
    its 202. If it was decided with another body than that `at` names, the key had been used before.
    """
    session = await services.sessions.require(request)
    operation: str = request.path_params["operation"]
    if not _ID.fullmatch(operation):
        raise Problem("operation_not_found")
    token = request.query_params.get("at", "")
    at = services.at_tokens.read(token, operation, session.user)
    undecided = None
    if at is not None:  # clients repeat this until it is decided: it is in no archive
        undecided = partial(queries.is_undecided, services.pools, at.partition, at.offset)
    found = (
        await queries.operations(services.pools, [operation], services.archives, undecided)
    ).get(operation)
    if found is not None:
        if found.request.user != session.user:
            raise Problem("operation_not_found")
        if at is not None and not at.matches(found.request):
            raise Problem("key_reused", operationId=operation)
        return answer(operation_view(found.operation))
    if at is None:
        raise Problem("operation_not_found")
    return answer(OperationView(operation_id=operation, status="accepted"))
