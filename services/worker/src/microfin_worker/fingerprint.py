"""The fingerprint of a record, by which a claim knows the log that it worked on before."""

from microfin.ledger import fingerprint as core
from microfin_worker.edges import Record


def fingerprint(record: Record) -> bytes:
    """Return 16 bytes that another log would not have at this offset."""
    return core.fingerprint(record.offset, record.time, record.key, record.value)
