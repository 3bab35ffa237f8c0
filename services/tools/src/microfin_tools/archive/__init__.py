"""Moving a ledger's old volumes to its archive (docs/adr/0045-archive.md)."""

from microfin_tools.archive.databases import NotArchivable
from microfin_tools.archive.job import Moved, archive

__all__ = ["Moved", "NotArchivable", "archive"]
