"""A platform with archives: who gets which of their URLs."""

from pathlib import Path

import pytest

from microfin_local.configuration import Configuration
from microfin_local.credentials import load_or_make
from microfin_local.data_services import lay_out
from microfin_local.database_home import DatabaseHome
from microfin_local.detours import Detours
from microfin_local.environments import DataServices
from microfin_local.ports import Ports


def services(folder: Path, archives: int) -> DataServices:
    configuration = Configuration(
        state=folder,
        shards=2,
        archives=archives,
        components=frozenset({"postgres", "pgbouncer"}),
        random_ports=True,
    )
    ports = Ports(folder / "ports.json", random_ports=True)
    return lay_out(
        configuration,
        ports,
        Detours(ports, wanted=False),
        load_or_make(folder / "secrets.json"),
        DatabaseHome(folder, None),
        folder,
    )


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [
        ("api", "microfin_api", False),
        ("auditor", "microfin_auditor", False),
        ("operator", "microfin_auditor", True),
        ("worker", "", False),
    ],
)
def test_who_may_read_the_archives_and_who_may_fill_them(
    tmp_path: Path, role: str, reads: str, writes: bool
) -> None:
    environment = services(tmp_path, 1).environment(role)
    read = environment.get("MICROFIN_ARCHIVES", "").split()
    assert [f"//{reads}:" in it for it in read] == [True, True] * bool(reads)
    assert [f"/microfin_archive_{shard}?" in it for shard, it in enumerate(read)] == [
        True for _ in read
    ]
    assert len(environment.get("MICROFIN_ARCHIVES_DIRECT", "").split()) == 2 * writes


def test_a_platform_without_archives_has_none(tmp_path: Path) -> None:
    made = services(tmp_path, 0)
    assert not {it for it in made.environment("operator") if "ARCHIVES" in it}
    assert made.pgbouncer is not None
    assert set(made.pgbouncer.databases) == {"microfin_0", "microfin_1"}


def test_a_database_that_a_test_adds_has_no_archive(tmp_path: Path) -> None:
    environment = services(tmp_path, 1).environment("api", "another")
    assert "MICROFIN_ARCHIVES" not in environment
