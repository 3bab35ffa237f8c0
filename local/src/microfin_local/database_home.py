"""The user and the folder of PostgreSQL and PgBouncer, which refuse to run as root."""

import hashlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from microfin_local.errors import PlatformError
from microfin_local.supervised import as_user

_USERS = ("postgres", "nobody")
_ELSEWHERE = Path("/var/tmp")  # noqa: S108 - the folder made in it is private to its owner.
_OWNER = "state-folder"
# A socket's path has 108 bytes with its end (unix(7)); the servers' file names are short.
_SOCKET_FOLDER = re.compile(r"/[\w./-]{0,79}", re.ASCII)


@dataclass(frozen=True)
class DatabaseHome:
    """A folder for the databases' files, and the user who owns it; None is the current user."""

    folder: Path
    user: str | None

    def own(self, path: Path) -> None:
        """Give a file or folder to the user who runs the databases."""
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def make_folder(self, name: str) -> Path:
        """Make a folder that only the databases' user can enter."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.own(folder)
        return folder

    def write(self, path: Path, text: str) -> None:
        """Write a file that only the databases' user can read."""
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(text)
        self.own(path)

    def copy(self, source: Path, folder: Path, names: Iterable[str]) -> None:
        """Copy files into a folder so that only the databases' user can read them."""
        for name in names:
            self.write(folder / name, (source / name).read_text())


def sockets_fit(folder: Path) -> bool:
    """Return whether a server can listen in this folder: its path must be short, and have only
    characters that need no quoting in any server's settings or in a URL."""
    return _SOCKET_FOLDER.fullmatch(str(folder)) is not None


def elsewhere(state: Path) -> Path:
    """Return the folder of the databases' files if their user cannot enter the state's folder."""
    return _ELSEWHERE / f"microfin-{hashlib.sha256(bytes(state.resolve())).hexdigest()[:12]}"


def choose_home(state: Path, wanted: Path | None = None) -> DatabaseHome:
    """Choose the user and the folder: `wanted`, or the state's folder, or another one.

    If root starts the platform, that user must be able to enter the folder.
    """
    state.mkdir(parents=True, exist_ok=True)
    if wanted is not None:
        return DatabaseHome(wanted, _user())
    user = _user()
    if user is None or _reachable(state, user):
        return DatabaseHome(state, user)
    forget_orphans()
    folder = elsewhere(state)
    _make_private(folder)
    (folder / _OWNER).write_text(f"{state.resolve()}\n")
    return DatabaseHome(folder, user)


def _user() -> str | None:
    """Return the user who runs the databases; None is the current user. Raises PlatformError."""
    if os.geteuid() != 0:
        return None
    user = next((name for name in _USERS if _exists(name)), None)
    if user is None:
        raise PlatformError(
            "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to "
            "run it as. Run `make setup`, or start as an ordinary user."
        )
    return user


def forget(state: Path) -> None:
    """Remove the folder that `choose_home` made outside the state's folder."""
    folder = elsewhere(state)
    if folder.is_dir() and _is_ours(folder):
        shutil.rmtree(folder)


def forget_orphans() -> None:
    """Remove such folders whose state is gone; mostly of tests that were interrupted.

    Other platforms that start at the same time remove the same folders, file by file.
    """
    for mark in _ELSEWHERE.glob(f"microfin-*/{_OWNER}"):
        try:
            orphan = _is_ours(mark.parent) and not Path(mark.read_text().strip()).exists()
        except FileNotFoundError:
            continue
        if orphan:
            shutil.rmtree(mark.parent, ignore_errors=True)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o711, exist_ok=True)
    if not _is_ours(folder):
        raise PlatformError(f"{folder} belongs to somebody else. Remove it and start again.")


def _is_ours(folder: Path) -> bool:
    return not folder.is_symlink() and folder.stat().st_uid == os.geteuid()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _reachable(folder: Path, user: str) -> bool:
    command = ["setpriv", *as_user(user), "--", "test", "-x", str(folder.resolve())]
    return subprocess.run(command, check=False, cwd="/").returncode == 0
