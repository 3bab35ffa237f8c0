"""The fingerprint of a record, by which a claim knows the log that it worked on before."""

from hashlib import blake2b

from microfin_worker.edges import Record


def fingerprint(record: Record) -> bytes:
    """Return 16 bytes that another log would not have at this offset."""
    head = f"{record.offset} {record.time} {record.key!r} ".encode()
    return blake2b(head + (record.value or b""), digest_size=16).digest()
