"""Two banks in one cluster: upgraded from the release before, by Helm 3 and by Helm 4, and back
again, while money moves; then one is removed while the other grows.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
import pytest_asyncio

from e2e.figures import figure
from e2e.kubernetes_bank import TAG, Mover, moving_money
from e2e.kubernetes_cluster import ROOT, kubectl
from e2e.pasted_guide import PATIENCE
from e2e.release_before import charts_before, commit, tag_before, why_no_charts, why_no_images
from e2e.two_banks import Owner, two_banks
from microfin_deploy.commands import listed, progress
from microfin_deploy.removal import remove_bank
from source.shell_blocks import shell_blocks

GUIDE: Final = ROOT / "docs/guide/upgrading.md"
MARK: Final = "pasted by a test"
REMOVED: Final = 120.0

pytestmark = pytest.mark.timeout(PATIENCE + 300)

Owners = tuple[Owner, Owner]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owners(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Owners]:
    """Those of the release before, or of this one where the other is not to be had."""
    folder = tmp_path_factory.mktemp("owners")
    charts, tag = ROOT / "charts", TAG
    if not why_not_before():
        charts, tag = charts_before(folder), tag_before()
    began = time.monotonic()
    async with two_banks(charts, tag, folder) as made:
        figure(f"two banks installed in {time.monotonic() - began:.1f} s")
        yield made


def why_not_before() -> str:
    return why_no_charts() or why_no_images()


def guide() -> list[str]:
    """Return the guide's commands: what keeps versions, operator, data, application, back."""
    keep, upgrade, back = (it.commands for it in shell_blocks(GUIDE) if it.mark == MARK)
    data, application = (
        upgrade.index(f"helm upgrade {it} ") for it in ("microfin-data", "microfin")
    )
    return [keep, upgrade[:data], upgrade[data:application], upgrade[application:], back]


async def both(owners: Owners, act: Callable[[Owner], Any]) -> None:
    """Let both owners do something at the same time."""
    await asyncio.gather(*(asyncio.to_thread(act, it) for it in owners))


@contextlib.asynccontextmanager
async def money_in_both(owners: Owners, partitions: tuple[int, int]) -> AsyncIterator[list[Mover]]:
    async with contextlib.AsyncExitStack() as stack:
        movers = [
            stack.enter_async_context(moving_money(it.bank, number))
            for it, number in zip(owners, partitions, strict=True)
        ]
        yield await asyncio.gather(*movers)


async def test_both_helms_upgrade_it_and_go_back_and_nobody_notices(owners: Owners) -> None:
    if reason := why_not_before():
        pytest.skip(reason)
    keep, operator, data, application, back = guide()
    by_hand = owners[1].bank
    by_hand.scale(4)
    await by_hand.until_active(4)
    async with money_in_both(owners, (3, 4)) as movers:
        await both(owners, lambda it: it.paste(keep))
        began = time.monotonic()
        for owner in owners:  # one after the other: it is one operator
            await asyncio.to_thread(owner.paste, operator)
        upon_operator = time.monotonic()
        await both(owners, lambda it: it.paste(data))
        upon_data = time.monotonic()
        await both(owners, lambda it: it.paste(application))
        upgraded = time.monotonic()
        await both(owners, lambda it: it.paste(back))
        await all_active(owners)
        returned = time.monotonic()
        # The other bank stays behind: the operator serves banks of both releases.
        await asyncio.to_thread(owners[0].paste, application)
        again = time.monotonic()
    figure(
        f"two banks upgraded from {commit()}, in seconds: operator {upon_operator - began:.1f}, "
        f"data {upon_data - upon_operator:.1f}, application {upgraded - upon_data:.1f}; "
        f"back {returned - upgraded:.1f}; one of them again {again - returned:.1f}"
    )
    for mover in movers:
        mover.report.assert_nobody_noticed()
    await asyncio.gather(*(it.bank.audit() for it in owners))


async def all_active(owners: Owners) -> None:
    """Wait until both banks work after a rollback."""
    three, four = owners
    await asyncio.gather(three.bank.until_active(3, 600), four.bank.until_active(4, 600))
    for owner in owners:
        owner.bank.kubectl("rollout", "status", "deployment/microfin-api", "--timeout=240s")


async def test_one_goes_while_the_other_grows(owners: Owners) -> None:
    """Its releases, its topic, then its namespace; the operator, which serves both, stays."""
    grows, goes = owners
    before = everything_of(grows)
    async with moving_money(grows.bank, 3) as mover:
        began = time.monotonic()
        grows.bank.scale(6)
        removal = asyncio.create_task(removed(goes))
        await grows.bank.until_active(6)
        grown = time.monotonic()
        gone = await removal
    mover.report.assert_nobody_noticed()
    figure(
        f"of two banks one grown from 3 to 6 in {grown - began:.1f} s, while the other was removed "
        f"with its topic and its namespace in {gone - began:.1f} s"
    )
    assert goes.bank.wanted.topic not in kubectl("get", "kafkatopics", "-A")
    after = everything_of(grows)
    changed = {name for name in before if after.get(name) != before[name]}
    # With the other namespace goes what the operator might do there.
    assert {it for it in changed if f" {goes.bank.namespace}/" not in it} == set()
    await grows.bank.audit()

    # Its namespace leaves the operator's values; the operator still serves the other bank.
    operator = guide()[1]
    with pytest.raises(AssertionError, match=f'namespaces "{goes.bank.namespace}" not found'):
        await asyncio.to_thread(grows.paste, operator)
    grows.operator_leaves(goes)
    await asyncio.to_thread(grows.paste, operator)
    grows.bank.scale(7)
    await grows.bank.until_active(7)


async def removed(owner: Owner) -> float:
    """Remove a bank as `make undeploy` does; return when it was gone."""
    await asyncio.to_thread(remove_bank, owner.bank.namespace, REMOVED, progress())
    return time.monotonic()


def everything_of(owner: Owner) -> dict[str, Any]:
    """Return the identity of all that no other bank may change: each object of a bank and of its
    operator, with what Secrets hold and what roles allow, its topic, and the operator's pod."""
    wanted = owner.bank.wanted
    of_operator = ("-l", f"app.kubernetes.io/instance={wanted.operator_release}")
    everywhere = kinds("--namespaced=true")
    items = [
        *listed(everywhere, "-n", wanted.namespace),
        *listed(everywhere, "-A", *of_operator),
        *listed(kinds("--namespaced=false"), *of_operator),
        *listed("pods", "-A", *of_operator),
        *(it for it in listed("kafkatopics", "-A") if it["metadata"]["name"] == wanted.topic),
    ]
    return {
        _name(it): (it["metadata"]["uid"], *map(it.get, CONTENT), _restarts(it)) for it in items
    }


CONTENT: Final = ("data", "rules", "subjects", "roleRef")


def _name(it: dict[str, Any]) -> str:
    metadata = it["metadata"]
    return f"{it['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def _restarts(it: dict[str, Any]) -> int:
    containers = it.get("status", {}).get("containerStatuses", [])
    return sum(one["restartCount"] for one in containers)


# What comes and goes while a bank works and grows.
LIVELY: Final = re.compile(
    "^(bindings|controllerrevisions|csi.*|endpoints|endpointslices|events|jobs|leases|nodes|"
    "componentstatuses|persistentvolumes|pods|replicasets|volumeattachments)([.]|$)"
)


def kinds(which: str) -> str:
    """Return the kinds that a bank's objects may have, as `kubectl get` takes them."""
    printed = kubectl("api-resources", "--verbs=list", which, "-o", "name").split()
    return ",".join(it for it in printed if not LIVELY.match(it))
