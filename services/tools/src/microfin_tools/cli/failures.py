"""The sentence and the exit code of a command that did not succeed.

0: done, and the answer is yes. 1: the answer is no (not found, rejected, violations). 2: the
command was wrong or could not be run (setting missing, database or Kafka away).
"""

import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, Final, NoReturn, TypeVar

import asyncpg
import typer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from pydantic import ValidationError

from microfin.kafka.client import KAFKA
from microfin.kafka.producer import ProduceRefused, ProduceUnknown
from microfin.postgres.archive_reading import ArchiveFault
from microfin.postgres.archives import WrongArchive
from microfin.postgres.shards import WrongShard
from microfin.process.renewed_tls import tls_fault
from microfin_tools.archive import NotArchivable
from microfin_tools.audit import AuditImpossible

Result = TypeVar("Result")

NO: Final = 1
COULD_NOT: Final = 2


class Refused(Exception):
    """The answer is no; the message says why and what to do."""


class CouldNot(Exception):
    """The command could not be run; the message says why and what to do."""


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` to its end; an error ends the process with a sentence and an exit code."""
    with reported():
        return asyncio.run(work)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn an error of the block into a sentence on stderr and an exit code."""
    try:
        yield
    except Refused as error:
        _end(str(error), NO)
    except (
        CouldNot,
        AuditImpossible,
        NotArchivable,
        WrongShard,
        WrongArchive,
        ArchiveFault,
        LookupError,
    ) as error:
        _end(str(error), COULD_NOT)
    except ValidationError as error:
        _end("\n".join(_setting(dict(fault)) for fault in error.errors()), COULD_NOT)
    except asyncpg.ClientConfigurationError as error:
        _end(
            f"A URL in MICROFIN_DATABASES or MICROFIN_DATABASES_DIRECT is wrong ({error}): write "
            "postgresql://user:password@host:port/database, several separated by spaces.",
            COULD_NOT,
        )
    except ValueError as error:
        _end(str(error), COULD_NOT)
    except ProduceUnknown as error:
        _end(
            f"Kafka did not acknowledge ({error}): the command may or may not be in the log. "
            "Repeat it with the same --key; that is safe.",
            COULD_NOT,
        )
    except TopicAuthorizationFailedError as error:
        _end(
            f"Kafka has refused this ({error}): the certificate's user has not the right. On "
            "Kubernetes only one Job may delete records: "
            "kubectl create job trim-now --from=cronjob/microfin-trim",
            COULD_NOT,
        )
    except (ProduceRefused, KafkaError) as error:
        _end(
            f"Kafka could not be used ({tls_fault(KAFKA) or error}): is it running, and is "
            "MICROFIN_KAFKA right?",
            COULD_NOT,
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _end(database_failure(error), COULD_NOT)


def _setting(fault: dict[str, Any]) -> str:
    name = "_".join(str(part) for part in fault["loc"]).upper()
    return f"The setting MICROFIN_{name} is wrong: {fault['msg']}."


def database_failure(error: BaseException) -> str:
    """Return what an error of the database means to the person who ran the command."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, asyncpg.UndefinedTableError):
        return f"The database is no microfin ledger ({text}): run `microfin migrate` first."
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"The database's role may not do this ({text}): see `microfin COMMAND --help`."
    return f"The database could not be used ({text}): is it running, and is its URL right?"


def _end(sentence: str, code: int) -> NoReturn:
    print(sentence, file=sys.stderr)  # noqa: T201 - the command's answer
    raise typer.Exit(code) from None
