"""The release that the tests upgrade from: its charts from git, its images by a tag."""

import os
import subprocess
from pathlib import Path
from typing import Final

from e2e.kubernetes_cluster import ROOT

NAMED: Final = Path(__file__).parent / "upgraded-from"
VARIABLE: Final = "MICROFIN_E2E_BEFORE_TAG"


def commit() -> str:
    """Return the commit that the file names."""
    lines = NAMED.read_text(encoding="utf-8").splitlines()
    (named,) = (line for line in lines if line and not line.startswith("#"))
    return named


def why_no_charts() -> str:
    """Return why its charts are not to be had; nothing if they are."""
    ask = ["git", "cat-file", "-e", f"{commit()}^{{commit}}"]
    if subprocess.run(ask, cwd=ROOT, capture_output=True, check=False).returncode:
        return f"git does not have {commit()}, which {NAMED.name} names: git fetch --unshallow"
    return ""


def why_no_images() -> str:
    """Return why its images are not to be had; nothing if they are."""
    if tag_before():
        return ""
    return (
        f"no images of {commit()}: tests/e2e/on_lab.sh builds them, and {VARIABLE} names their tag"
    )


def tag_before() -> str:
    """Return the tag of its images; nothing where nobody has built them."""
    return os.environ.get(VARIABLE, "")


def charts_before(folder: Path) -> Path:
    """Unpack its charts into a folder; return the folder `charts`."""
    archive = ["git", "archive", commit(), "charts"]
    packed = subprocess.run(archive, cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
    return folder / "charts"
