"""Where PostgreSQL's files go when root starts it from a folder its user cannot enter."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from microfin_local import database_home


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    tmp_path.chmod(0o700)
    yield tmp_path
    database_home.forget(tmp_path)


def test_the_databases_user_can_reach_their_folder(closed_folder: Path) -> None:
    home = database_home.choose_home(closed_folder)
    if os.geteuid() == 0:
        assert home.folder == database_home.elsewhere(closed_folder)
        assert home.user is not None
    else:  # An ordinary user runs them as itself, in its own folder.
        assert home == database_home.DatabaseHome(closed_folder, None)
    made = home.make_folder("postgres-0")
    assert made.stat().st_mode & 0o077 == 0


def test_cleaning_forgets_that_folder_too(closed_folder: Path) -> None:
    home = database_home.choose_home(closed_folder)
    home.make_folder("postgres-0")
    database_home.forget(closed_folder)
    assert not database_home.elsewhere(closed_folder).exists()


def test_what_belonged_to_a_state_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    gone, kept = tmp_path / "gone", tmp_path / "kept"
    folders = [database_home.choose_home(state).folder for state in (gone, kept)]
    gone.rmdir()
    database_home.forget_orphans()
    assert [folder.exists() for folder in folders] == [False, True]
    database_home.forget(kept)


def test_what_another_platform_forgets_at_the_same_time_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes after the look into the shared folder, before its mark is read."""
    monkeypatch.setattr(database_home, "_ELSEWHERE", tmp_path)
    for name in ("first", "second"):
        folder = tmp_path / f"microfin-{name}"
        folder.mkdir()
        (folder / "state-folder").write_text(f"{tmp_path / name}\n")
    is_ours = database_home._is_ours

    def too_late(folder: Path) -> bool:
        ours = is_ours(folder)
        shutil.rmtree(folder)
        return ours

    monkeypatch.setattr(database_home, "_is_ours", too_late)
    database_home.forget_orphans()
    assert not list(tmp_path.glob("microfin-*"))


@pytest.mark.parametrize(
    ("folder", "fit"),
    [
        ("/srv/microfin-0a1b2c/postgres-0", True),
        ("/home/ada/work/.local/pgbouncer", True),
        ("/home/ada/my work/.local/pgbouncer", False),
        ("/home/ada/it's/.local/pgbouncer", False),
        ("/" + "long" * 25, False),
    ],
)
def test_sockets_are_only_in_short_and_plain_paths(folder: str, fit: bool) -> None:
    assert database_home.sockets_fit(Path(folder)) is fit
