from pathlib import Path

import pytest

from microfin_local.cleanup import clean
from microfin_local.errors import PlatformError
from microfin_local.ownership import owning


def test_everything_but_the_downloads_is_forgotten(tmp_path: Path) -> None:
    for folder in ("cache/kafka", "logs", "postgres-0/base"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "platform.json").write_text("{}")
    clean(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]
    assert (tmp_path / "cache" / "kafka").is_dir()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(PlatformError, match="nothing was removed"):
        clean(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_running_platform_is_not_cleaned(tmp_path: Path) -> None:
    with owning(tmp_path), pytest.raises(PlatformError, match="make stop"):
        clean(tmp_path)
