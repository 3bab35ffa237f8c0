"""microfin's adapter for the comparison, and the example for others."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from microfin.postgres.connections import connect
from microfin_loadtest.compare.adapter import Account, Transfer
from microfin_loadtest.ledger import audit_at_rest
from microfin_loadtest.subject import running_platform
from microfin_loadtest.users import prepared_sessions
from microfin_local.platform import REPOSITORY

# A transfer across partitions is settled when its credit is.
_SETTLED = """
    SELECT count(*) FROM outcomes
    WHERE kind = 'transfer' AND status = 'settled' AND leg IN ('request', 'credit')
"""


class Adapter:
    """The platform of `make start`; `where` is its state folder, by default `.local`."""

    def __init__(self, where: str) -> None:
        self.state = Path(where).resolve() if where else REPOSITORY / ".local"
        self.platform = running_platform(self.state)

    def prepare(self, accounts: int) -> Sequence[Account]:
        """Sign up that many users, each with a funded account, and sign them in."""
        users = self.state / "compare-users.json"
        sessions = asyncio.run(prepared_sessions(self.platform.api, users, accounts))
        return [{"session": session, "number": number} for session, number in sessions]

    def transfer(self) -> Transfer:
        """Return the request; its answer is 200 once the transfer has settled."""
        return Transfer(
            url=f"{self.platform.api}/api/transfer",
            headers={
                "Content-Type": "application/json",
                "Authorization": "Bearer <sender.session>",
                "Idempotency-Key": "<unique>",
            },
            body='{"senderAccountNumber": "<sender.number>", '
            '"receiverAccountNumber": "<receiver.number>", "amount": "0.01"}',
            settled_text='"status":"settled"',
        )

    def settled(self) -> int:
        """Count the settled transfers of all shards."""
        return sum(asyncio.run(_count(url)) for url in self.platform.postgres_shards)

    def audit(self) -> str:
        """Audit the whole ledger."""
        verdict = asyncio.run(audit_at_rest(self.platform.postgres_shards))
        return "" if verdict["ok"] else f"The audit found something: {verdict}"


async def _count(url: str) -> int:
    connection = await connect(url)
    try:
        counted: int = await connection.fetchval(_SETTLED)
    finally:
        await connection.close()
    return counted
