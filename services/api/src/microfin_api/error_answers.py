"""The answers to the errors that endpoints raise."""

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from microfin.postgres.archive_reading import ArchiveAway, ArchiveFault
from microfin.postgres.connections import DATABASE_ERRORS, is_connection_loss
from microfin.postgres.shards import NotMigrated, WrongShard
from microfin_api.http.problems import Problem

logger = structlog.get_logger(__name__)


def answer_to(error: Exception, path: str) -> Response | None:
    """Return the answer to a request of `path` that ended with `error`; None: nobody expects it."""
    if isinstance(error, Problem):
        return error.answer()
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # the client hung up before it had sent its body
    if isinstance(error, WrongShard | NotMigrated):
        logger.critical("the database is of another shard", path=path, error=str(error))
        return Problem("unavailable", "The database is of another shard.").answer()
    if isinstance(error, ArchiveFault):
        return _answer_to_archive(error, path)
    if isinstance(error, DATABASE_ERRORS):
        return _answer_to_database(error, path)
    return None


def _answer_to_database(error: Exception, path: str) -> Response:
    if not is_connection_loss(error):
        logger.error("unexpected error", path=path, exc_info=error)
        return Problem("internal").answer()
    logger.warning("database unavailable", path=path, error=repr(error))
    return Problem("unavailable", "The database does not answer.").answer()


def _answer_to_archive(error: ArchiveFault, path: str) -> Response:
    if isinstance(error, ArchiveAway):
        logger.warning("archive unavailable", path=path, error=str(error))
        return Problem("archive_unavailable").answer()
    logger.error("archive unusable", path=path, error=str(error))
    return Problem("archive_unusable").answer()
