"""A commit's platform as a ledger of the comparison."""

from collections.abc import Sequence

from microfin_loadtest.compare.adapter import Account
from microfin_loadtest.compare.client import Load
from microfin_loadtest.compare.microfin import Adapter
from microfin_loadtest.compare.named import Named
from microfin_loadtest.compare.result import Measured, why_invalid
from microfin_loadtest.compare.run import measure
from microfin_loadtest.figures.checkout import FOLDER
from microfin_loadtest.figures.part import Turn

ACCOUNTS = 200


class Subject(Adapter):
    """The platform of a turn, audited by its own commit's audit."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(str(turn.checkout.state))
        self._turn = turn

    def audit(self) -> str:
        """Audit the whole ledger."""
        return self._turn.checkout.audit(self.platform)

    def measure(self, load: Load, accounts: Sequence[Account] = ()) -> Measured:
        """Send transfers as the comparison does."""
        sent = accounts or self.prepare(ACCOUNTS)
        named = Named(self._turn.checkout.commit, self)
        return measure(named, sent, load, self._turn.settings.seconds, self._turn.k6, FOLDER)

    def reasons(self, runs: Sequence[Measured]) -> list[str]:
        """Audit, and return why runs do not count."""
        return why_invalid(self._turn.checkout.commit, runs, self.audit())
