"""What the comparison finds."""

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that must not be."""

    kind: str
    what: str
    operation: str = ""
    account: str = ""
