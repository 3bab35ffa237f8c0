"""`microfin topic grow` on a real Kafka."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from microfin_local.platform import Platform

TOPIC = "grown.commands"


async def grow(platform: Platform, *arguments: str) -> tuple[int, str]:
    """Run the command and return its exit code and what it said."""
    settings = platform.environment("operator", "postgres", TOPIC)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "microfin_tools", "topic", "grow", *arguments),
        env={**os.environ, **settings},
        stdout=PIPE,
        stderr=PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode() + errors.decode()


async def configuration(platform: Platform) -> dict[str, str]:
    kafka = platform.environment("operator", "postgres", TOPIC)["MICROFIN_KAFKA"]
    administrator = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await administrator.start()
    try:
        resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC)
        (response,) = await administrator.describe_configs([resource])
        return {entry[0]: entry[1] for entry in response.resources[0][4]}
    finally:
        await administrator.close()


async def test_a_topic_is_made_grown_and_never_shrunk(platform: Platform) -> None:
    made = ("--partitions", "3", "--replicas", "1", "--config", "min.insync.replicas=1")
    assert await grow(platform, *made) == (0, f"made {TOPIC} with 3 partitions\n")
    found = await configuration(platform)
    assert found["retention.ms"] == "-1"
    assert found["message.timestamp.type"] == "LogAppendTime"
    assert found["min.insync.replicas"] == "1"
    more = f"grew {TOPIC} from 3 to 6 partitions\n"
    assert await grow(platform, "--partitions", "6") == (0, more)
    same = f"{TOPIC} has 6 partitions\n"
    assert await grow(platform, "--partitions", "6") == (0, same)
    assert await grow(platform, "--partitions", "3") == (0, same)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--partitions", "0"], 2, "--partitions"),
        (["--partitions", "3", "--config", "retention"], 2, "NAME=VALUE"),
    ],
)
async def test_wrong_use_is_explained(
    platform: Platform, arguments: list[str], code: int, said: str
) -> None:
    done, words = await grow(platform, *arguments)
    assert (done, said in words) == (code, True)


async def test_more_replicas_than_brokers_are_refused(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "TOPIC", "wide.commands")
    code, words = await grow(platform, "--partitions", "3", "--replicas", "9")
    assert (code, "Kafka would not make wide.commands" in words) == (1, True)


async def test_a_topic_that_should_be_there_is_not_made(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty topic must not replace one with commands."""
    monkeypatch.setitem(globals(), "TOPIC", "gone.commands")
    made = ("--partitions", "3", "--replicas", "1")
    code, words = await grow(platform, *made, "--existing")
    assert (code, "Kafka has no topic gone.commands" in words) == (1, True), words
    assert (await grow(platform, *made))[0] == 0
    grown = (0, "grew gone.commands from 3 to 6 partitions\n")
    assert await grow(platform, "--partitions", "6", "--existing") == grown
