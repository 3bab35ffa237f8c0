import re
from pathlib import Path

import pytest

from microfin_local import kafka
from microfin_local.configuration import (
    Configuration,
    from_environment,
    recall,
    refuse_changed_form,
    remember,
)
from microfin_local.errors import PlatformError


def test_unsaid_things_are_the_defaults(tmp_path: Path) -> None:
    configuration = from_environment({}, tmp_path)
    assert configuration == Configuration(state=tmp_path)
    assert (configuration.workers, configuration.api_processes) == (4, 2)


def test_the_environment_says_the_form_and_passes_settings_on(tmp_path: Path) -> None:
    environment = {"WORKERS": "6", "SHARDS": "2", "BROKERS": "3", "MICROFIN_ANSWER": "accepted"}
    configuration = from_environment(environment, tmp_path)
    assert (configuration.workers, configuration.shards, configuration.brokers) == (6, 2, 3)
    assert configuration.extra == {"MICROFIN_ANSWER": "accepted"}


def test_unsaid_things_are_as_the_state_remembers_them(tmp_path: Path) -> None:
    remember(Configuration(state=tmp_path, workers=6, shards=2, brokers=3, archives=1))
    configuration = from_environment({"WORKERS": ""}, tmp_path)
    assert configuration.archives == 1
    assert from_environment({"ARCHIVES": "0"}, tmp_path).archives == 0
    assert (configuration.workers, configuration.shards, configuration.brokers) == (6, 2, 3)
    refuse_changed_form(configuration, recall(tmp_path))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"SHARDS": "2"}, "made with SHARDS=1 and cannot change to 2.*make clean"),
        ({"BROKERS": "3"}, "made with BROKERS=1 and cannot change to 3.*make clean"),
        ({"WORKERS": "2"}, "partitions never shrink. Start with WORKERS=4"),
        ({"WORKERS": "6"}, "make grow WORKERS=6"),
    ],
)
def test_a_changed_form_is_refused(
    tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    remember(Configuration(state=tmp_path))
    with pytest.raises(PlatformError, match=sentence):
        refuse_changed_form(from_environment(environment, tmp_path), recall(tmp_path))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"WORKERS": "many"}, "whole number"),
        ({"WORKERS": "-1"}, "whole number"),
        ({"WORKERS": "0"}, "between 1 and 64"),
        ({"WORKERS": "3", "SHARDS": "2"}, "multiple of SHARDS"),
        ({"BROKERS": "2"}, "1 or 3"),
        ({"REDIS_REPLICAS": "2"}, "between 0 and 1"),
        ({"ARCHIVES": "2"}, "between 0 and 1"),
    ],
)
def test_an_impossible_form_is_refused(
    tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(PlatformError, match=sentence):
        from_environment(environment, tmp_path)


def test_an_unknown_component_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no component called zookeeper"):
        Configuration(state=tmp_path, components=frozenset({"zookeeper"}))


def test_maven_fetches_the_kafka_that_python_starts() -> None:
    pom = Path(__file__).parents[1] / "kafka" / "pom.xml"
    version = re.search("<kafka.version>(.*)</kafka.version>", pom.read_text())
    assert version is not None
    assert version[1] == kafka.KAFKA_VERSION
