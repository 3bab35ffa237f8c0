"""Why an audit could not be made, in sentences."""

import asyncpg


class AuditImpossible(Exception):
    """The audit could not be made; the message says why and what to do."""


def explain(failures: BaseExceptionGroup) -> str:
    """Return what the first of `failures` means to the person who runs the audit."""
    error = first(failures)
    if isinstance(error, asyncpg.UndefinedTableError):
        return f"The database is not a microfin ledger ({error}): run `microfin migrate` first."
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return (
            f"The database refuses ({error}): audit with the role microfin_auditor or with the "
            "owner's."
        )
    detail = str(error) or type(error).__name__
    return f"The database could not be audited ({detail}): is it running, and is the URL right?"


def first(failures: BaseExceptionGroup) -> BaseException:
    """Return the first error inside the group."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
