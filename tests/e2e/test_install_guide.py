"""The install guide's commands, pasted into a shell as a stranger does.

The test runs the marked blocks, which need no internet. The lines that the guide shows below a
block must be in the block's output. A block that loads the bank runs only where K6_IMAGE names an
image that the nodes have. Everything lives in a namespace of its own, except the operator, which
`make deploy` puts into `microfin-system`, as it does for anybody.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from e2e.existing_kafka import existing_kafka, kafka_resource
from e2e.kubernetes_cluster import ROOT, apply, kubectl
from e2e.pasted_guide import PATIENCE, by_block, paste
from microfin_deploy.commands import exists
from microfin_deploy.releases import OPERATOR_NAMESPACE
from source.shell_blocks import ShellBlock, missing, shell_blocks

pytestmark = pytest.mark.timeout(PATIENCE + 300)

GUIDE = ROOT / "docs/guide/install.md"
DEFINITION = "crd/microfinclusters.microfin.io"
MARK = "pasted by a test"
MARK_WITH_K6 = "pasted by a test with K6_IMAGE"


@pytest.fixture
def namespace() -> Iterator[str]:
    """Name one, and remove what the guide has made in it, however far it came."""
    if exists(f"namespace/{OPERATOR_NAMESPACE}"):
        pytest.skip(
            f"Somebody's operator is in {OPERATOR_NAMESPACE}, and the guide would replace it: "
            "remove it with `make undeploy`, or test on another cluster."
        )
    if not _within(60, lambda: not exists("mfc", "-A")):
        pytest.skip(
            "There are MicrofinClusters in this cluster, which the guide's operator would serve: "
            "test on another one."
        )
    # Other tests leave it, and a chart does not take over what it has not made.
    kubectl("delete", DEFINITION, "--ignore-not-found")
    name = f"microfin-e2e-{uuid4().hex[:6]}"
    if kafka := existing_kafka():
        apply(kafka_resource(kafka, name))
    try:
        yield name
    finally:
        undeploy = ("make", "undeploy", f"ARGS=--namespace {name}")
        done = subprocess.run(undeploy, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(undeploy)}: {done.stdout}{done.stderr}"


def _within(seconds: float, probe: Callable[[], bool]) -> bool:
    """Whether something comes true; those of other tests may still be on their way out."""
    ends = time.monotonic() + seconds
    while not (true := probe()) and time.monotonic() < ends:
        time.sleep(1)
    return true


def test_the_guides_commands_work_as_pasted(namespace: str, tmp_path: Path) -> None:
    marks = (MARK, MARK_WITH_K6) if "K6_IMAGE" in os.environ else (MARK,)
    blocks = [block for block in shell_blocks(GUIDE) if block.mark in marks]
    left_out = [block.line for block in shell_blocks(GUIDE) if block.mark not in marks]
    print(f"not run here: the blocks of {GUIDE.name} in lines {left_out}")

    code, output = paste(blocks, {"NAMESPACE": namespace}, tmp_path)

    print(output)
    assert code == 0, f"a command of the guide failed (exit code {code}):\n{output}"
    printed = by_block(output)
    assert printed.keys() == {block.line for block in blocks}
    for block in blocks:
        lacking = missing(expected(block), printed[block.line])
        assert lacking == [], f"line {block.line} did not print {lacking}:\n{printed[block.line]}"
    assert not exists(f"namespace/{namespace}")


def expected(block: ShellBlock) -> tuple[str, ...]:
    """Return what the guide shows; nothing of a build, if `make deploy` is given images."""
    if "MICROFIN_DEPLOY_TAG" not in os.environ:
        return block.printed
    return tuple(line for line in block.printed if "dev-…" not in line)
