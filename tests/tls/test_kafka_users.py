"""What each Kafka user of the chart microfin-data may do, by a broker's own authorizer.

Each user comes with a certificate as Strimzi writes it, and has the ACLs of its KafkaUser. The
operator has no user: Strimzi makes topics for it.
"""

from pathlib import Path
from typing import Final

import aiokafka
import pytest
import pytest_asyncio

from microfin.kafka.client import connection_options
from microfin.process.settings import CommonSettings
from support.certificates import Secret
from support.kafka_acts import Options, may
from support.kafka_users import acts_of, give_rights, users
from tls.servers import Servers

TOPIC: Final = "tls.commands"
MAY: Final = acts_of(users())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def topic(servers: Servers) -> str:
    platform = servers.platform
    await platform.create_topic(TOPIC, 1)
    await give_rights(platform.endpoints.kafka, TOPIC)
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=platform.endpoints.kafka)
    async with producer:
        await producer.send_and_wait(TOPIC, b"first", partition=0)
    return TOPIC


@pytest.fixture
def options(
    request: pytest.FixtureRequest, servers: Servers, topic: str, tmp_path: Path
) -> Options:
    """How a user of the chart connects."""
    issued = servers.authority.issue(f"microfin-{request.param}")
    mounted = Secret(
        tmp_path / "user",
        {
            "ca.crt": servers.authority.certificate,
            "user.crt": issued.certificate,
            "user.key": issued.key,
        },
    )
    settings = CommonSettings(
        kafka=f"127.0.0.1:{servers.platform.port_of('kafka-1 tls')}",
        kafka_ca_file=mounted.path("ca.crt"),
        kafka_certificate_file=mounted.path("user.crt"),
        kafka_key_file=mounted.path("user.key"),
    )
    return connection_options(settings, "test")


def test_commands_come_from_few_and_records_are_deleted_by_one() -> None:
    def who(act: str) -> set[str]:
        return {name for name, acts in MAY.items() if act in acts}

    assert who("produce") == {"api", "worker", "administrator"}
    assert who("commit_the_lag") == {"worker"}
    assert len(who("trim")) == 1
    assert not who("trim") & {"api", "worker", "audit"}


@pytest.mark.parametrize("options", MAY, indirect=True)
async def test_each_user_may_do_its_own_work_and_nothing_else(
    options: Options, request: pytest.FixtureRequest
) -> None:
    user = request.node.callspec.params["options"]
    assert await may(options, TOPIC) == MAY[user]


@pytest.mark.parametrize("options", ["stranger"], indirect=True)
async def test_a_user_without_rights_may_do_nothing(options: Options) -> None:
    assert await may(options, TOPIC) == set()
