"""The page on cut-off parts: the code keeps its times, and each row has a test."""

import re
from math import ceil

import pytest

from microfin.kafka import producer
from microfin.ledger.lease import LEASE_SECONDS
from microfin.postgres.archive_reading import DEADLINES
from microfin.process import ticks
from microfin.process.settings import ApiSettings
from microfin.process.silence import SAID_AFTER
from microfin.redis import guarded
from microfin_api import services
from microfin_operator import api_silence, worker_reports
from microfin_operator.settings import OperatorSettings
from microfin_tools.audit import shard
from microfin_tools.cli import sending, topic
from microfin_tools.migrations import run
from microfin_worker import kafka_log, log_watch
from source.markdown_pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "cut-off.md"
COLUMNS = 8
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| process")
]
# A process asks a tick late at most. A worker looks whether its row is due after each fetch.
_TICKS = max(producer._PROBE_EVERY, guarded._LOOK_EVERY, log_watch.EVERY)
_LATE = max(ticks._TOO_NEAR * _TICKS, kafka_log._FETCH_WAIT / 1000)
_SHOWN = ceil(SAID_AFTER + _LATE)
_WORKER_MISSED = OperatorSettings.model_fields["look_seconds"].default + (
    worker_reports._PATIENCE.total or 0
)
NOTICES = {
    ("worker", "Kafka"): _SHOWN,
    ("worker", "PostgreSQL"): _SHOWN,
    ("worker", "Redis"): _SHOWN,
    ("API", "Kafka"): _SHOWN,
    ("API", "PostgreSQL, each shard"): LEASE_SECONDS,
    ("API", "Redis"): _SHOWN,
    ("operator", "Kubernetes API"): api_silence.SAID_AFTER,
    ("operator", "worker"): _WORKER_MISSED,
    ("API", "archive, each shard"): services._LOOKING_SECONDS
    + DEADLINES * ApiSettings.model_fields["database_timeout"].default,
    ("`microfin` commands", "PostgreSQL"): max(
        shard._CONNECT_TIMEOUT, int(run._DEADLINES["connect_timeout"])
    ),
    ("`microfin` commands", "Kafka"): max(topic._CONNECT_TIMEOUT, sending._CONNECT_TIMEOUT),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_page_says_what_the_code_does(row: list[str]) -> None:
    assert len(row) == COLUMNS
    assert row[3] == f"{NOTICES[row[0], row[1]]:g} s"


def test_there_is_a_row_for_each_part_of_each_process() -> None:
    assert [(row[0], row[1]) for row in ROWS] == list(NOTICES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_each_row_names_its_test(row: list[str]) -> None:
    found = re.fullmatch(r"`(test_\w+)(?:\[(\w+)-(\w+)\])?`", row[7])
    assert found is not None, row[7]
    name, who, part = found.groups()
    files = [
        path
        for folder in ("tests", "services", "operator")
        for path in (REPOSITORY / folder).rglob("test_*.py")
        if f"async def {name}(" in path.read_text(encoding="utf-8")
    ]
    assert len(files) == 1, files
    if who is not None:
        text = files[0].read_text(encoding="utf-8")
        assert f'"{who}"' in text
        assert f'"{part}"' in text


def test_every_case_of_the_processes_is_a_row() -> None:
    cases = {(row[0].lower(), row[1].split(",")[0].lower()) for row in ROWS[:6]}
    assert {f"`test_who_is_cut_off_says_so_and_settles_again[{a}-{b}]`" for a, b in cases} == {
        row[7] for row in ROWS[:6]
    }
