"""The guide to day two, pasted into a shell while money moves.

The blocks that one node without Strimzi runs are marked. One more signs everybody out:
it runs when nothing moves. At the end all balances are compared, and an audit finds nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e import kubernetes_bank
from e2e.kubernetes_bank import Bank, moving_money
from e2e.kubernetes_cluster import ROOT
from e2e.pasted_guide import PATIENCE, by_block, paste
from source.shell_blocks import ShellBlock, missing, shell_blocks

pytestmark = pytest.mark.timeout(PATIENCE + 300)

GUIDE = ROOT / "docs/guide/day-two.md"
UNDER_LOAD = "pasted by a test"
AT_REST = "pasted by a test at rest"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank() -> AsyncIterator[Bank]:
    async with kubernetes_bank.new_bank() as made:
        yield made


async def test_the_guides_commands_lose_no_money(bank: Bank, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    checkout.joinpath("charts").symlink_to(ROOT / "charts")
    blocks = shell_blocks(GUIDE)
    under_load = [it for it in blocks if it.mark == UNDER_LOAD]
    # The last ones use what the others have set.
    at_rest = [it for it in blocks if it.mark == AT_REST]
    left_out = [it.line for it in blocks if it not in under_load + at_rest]
    print(f"not run here: the blocks of {GUIDE.name} in lines {left_out}")
    assert len(under_load) >= 7

    async with moving_money(bank, 3) as mover:
        await pasted(under_load, bank, checkout)
        await bank.until_active(3)
    mover.report.assert_money_is_right()
    await pasted(at_rest, bank, checkout)
    await bank.audit()


async def pasted(blocks: list[ShellBlock], bank: Bank, checkout: Path) -> None:
    """Paste the blocks; each must succeed and print what the guide shows."""
    variables = {"NAMESPACE": bank.namespace, "SESSION": "microfin-session"}
    code, output = await asyncio.to_thread(paste, blocks, variables, checkout.parent, checkout)
    print(output)
    assert code == 0, f"a command of the guide failed (exit code {code}):\n{output}"
    printed = by_block(output)
    for block in blocks:
        lacking = missing(block.printed, printed[block.line])
        assert lacking == [], f"line {block.line} did not print {lacking}:\n{printed[block.line]}"
