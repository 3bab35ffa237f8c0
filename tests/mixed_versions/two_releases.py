"""The sources of the last release and those of this checkout, each ready to run processes from."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LAST_RELEASE = Path(__file__).parent / "last-release"
VARIABLE = "MICROFIN_LAST_RELEASE"


def members_in(folder: Path) -> list[Path]:
    """Return the packages of services that a release in `folder` has."""
    members = (folder / "services" / it for it in ("core", "api", "worker", "tools"))
    return [member for member in members if member.exists()]


@dataclass(frozen=True)
class Release:
    """One release's sources, and a Python that has the packages they need."""

    name: str
    folder: Path
    python: str = sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """What makes Python import microfin from this folder, before any installed one."""
        sources = [member / "src" for member in members_in(self.folder)]
        return {"PYTHONPATH": os.pathsep.join(map(str, sources))}

    @property
    def command_line(self) -> tuple[str, str]:
        """How this release's Python runs the command `microfin`."""
        has_tools = (self.folder / "services" / "tools").exists()
        return ("-m", "microfin_tools" if has_tools else "microfin")

    async def run(self, *arguments: str, **settings: str) -> str:
        """Run this release's Python and return what it printed; fail with its errors."""
        process = await asyncio.create_subprocess_exec(
            self.python,
            *arguments,
            env={**os.environ, **settings, **self.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.folder,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, output.decode() + errors.decode()
        return output.decode().strip()


PRESENT = Release("this checkout", REPOSITORY)


def last_release() -> str:
    """Return the tag or commit that the variable or the file names; empty where there is none."""
    lines = LAST_RELEASE.read_text(encoding="utf-8").splitlines()
    named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return os.environ.get(VARIABLE, "") or (named[0] if named else "")


def check_out(release: str, folder: Path) -> Release:
    """Unpack the sources of a tag or commit; with other pins than ours it gets its own packages."""
    archive = subprocess.run(
        ["git", "archive", release], cwd=REPOSITORY, capture_output=True, check=False
    )
    assert archive.returncode == 0, (
        f"{LAST_RELEASE.name} or {VARIABLE} names {release!r}, which git does not have here: fetch "
        f"it (git fetch --tags --unshallow). {archive.stderr.decode()}"
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    pins = "requirements.txt"
    if (folder / pins).read_bytes() == (REPOSITORY / pins).read_bytes():
        return Release(release, folder)
    python = folder / ".venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    uv_pip = [sys.executable, "-m", "uv", "pip"]
    into = ["--quiet", "--python", python]
    subprocess.run([*uv_pip, "sync", *into, "--require-hashes", folder / pins], check=True)
    members = [f"--editable={member}" for member in members_in(folder)]
    install = [*uv_pip, "install", *into, "--no-deps", "--no-build-isolation", *members]
    subprocess.run(install, check=True)
    return Release(release, folder, str(python))
