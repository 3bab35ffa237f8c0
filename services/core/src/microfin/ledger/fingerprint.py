"""The fingerprint of a record, by which a log is recognised."""

from hashlib import blake2b


def fingerprint(offset: int, time: int, key: bytes | None, value: bytes | None) -> bytes:
    """Return 16 bytes that differ from those of another log at this offset.

    `time` is the broker's append time in milliseconds since the Unix epoch.
    """
    head = f"{offset} {time} {key!r} ".encode()
    return blake2b(head + (value or b""), digest_size=16).digest()
