"""Publishing what a batch decided: answers to the waiting clients.

Where API processes of the release before read balances in Redis, the batch's accounts go there
first, and no answer before that is done: who has an answer must not see an older balance.
"""

import asyncio

import structlog

from microfin.ledger.records import Account, Decisions
from microfin.redis.account_cache import CachedAccount
from microfin_worker.phases import BatchPhases
from microfin_worker.ports import Cache, Replies

logger = structlog.get_logger(__name__)


class Answers:
    """Publishes committed batches, one after another, while the next batch is being read."""

    def __init__(self, replies: Replies, cache: Cache | None) -> None:
        self._replies = replies
        self._cache = cache
        self._publishing: asyncio.Task[None] | None = None

    async def publish(self, decisions: Decisions, phases: BatchPhases) -> None:
        """Wait until the batch before is published, then begin to publish this one."""
        await self.finish()
        self._publishing = asyncio.create_task(self._publish(decisions, phases))

    async def finish(self) -> None:
        """Wait until the latest batch is published."""
        if self._publishing is not None:
            await self._publishing

    async def _publish(self, decisions: Decisions, phases: BatchPhases) -> None:
        """Best effort: the commit is done, and no failure in here may reach the ledger."""
        try:
            await self._refresh_and_answer(decisions)
        except Exception as error:
            logger.error("answers were lost", exc_info=error)
        else:
            phases.published(len(decisions.answers))

    async def _refresh_and_answer(self, decisions: Decisions) -> None:
        if self._cache is not None:
            await self._cache.put(map(_cached, decisions.accounts.values()))
        if decisions.answers:
            await self._replies.send(decisions.answers)


def _cached(account: Account) -> CachedAccount:
    return CachedAccount(
        account.number,
        account.owner,
        account.currency,
        account.balance,
        account.state,
        account.seq,
        account.version,
    )
