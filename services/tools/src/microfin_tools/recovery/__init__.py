"""Recovering a shard that was restored from an older backup (docs/adr/0016).

The workers do the work: they decide the log again, beginning at the restored `next_offset`, as
after every claim. A recovery makes sure that this restores the lost state (`check`) and that no
process from before the restore can disturb it (`prepare`), and reports what is missing afterwards
(`verify`).
"""

from microfin_tools.recovery.checking import Recovery, check
from microfin_tools.recovery.preparing import PlaceMoved, prepare
from microfin_tools.recovery.report import CheckReport, VerifyReport
from microfin_tools.recovery.verifying import ReplayNotFinished, verify

__all__ = [
    "CheckReport",
    "PlaceMoved",
    "Recovery",
    "ReplayNotFinished",
    "VerifyReport",
    "check",
    "prepare",
    "verify",
]
