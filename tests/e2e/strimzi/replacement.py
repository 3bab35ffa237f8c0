"""Both authorities replaced at once, in the steps of Strimzi's Cluster Operator."""

from collections.abc import Awaitable, Callable

from e2e.strimzi import broker
from e2e.strimzi.broker import Trust


async def replace_authorities(clients_follow: Callable[[], Awaitable[None]]) -> None:
    """Replace them with new keys, as after `strimzi.io/force-replace` on both Secrets with keys.

    First everybody trusts the old and the new ones, then the broker and its users show
    certificates of the new ones, then nobody trusts the old ones. At last the broker restarts, and
    every connection is made anew. Strimzi restarts it after each step, which takes minutes: in this
    time clients get their files. Here `clients_follow` waits until they have them.
    """
    before = Trust.load()
    both = before.replaced()
    broker.write(both, renewed=False)
    await broker.reload()
    both.store()
    await clients_follow()
    broker.write(both, renewed=True)
    await broker.reload()
    new = both.alone()
    broker.write(new, renewed=False)
    await broker.reload()
    new.store()
    await clients_follow()
    await broker.restart()
