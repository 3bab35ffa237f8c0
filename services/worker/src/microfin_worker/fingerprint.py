"""The fingerprint of a record, by which a claim recognises the log of the claim before."""

from microfin.ledger import fingerprint as core
from microfin_worker.ports import Record


def fingerprint(record: Record) -> bytes:
    """Return 16 bytes that differ from those of another log at this offset."""
    return core.fingerprint(record.offset, record.time, record.key, record.value)
