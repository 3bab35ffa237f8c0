"""`microfin topic`: creating and growing the commands topic if nobody else does it."""

from typing import Annotated, Final

import typer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from microfin.kafka.client import KAFKA, connection_options
from microfin.process.renewed_tls import tls_fault
from microfin.process.settings import CommonSettings
from microfin_tools.cli.failures import CouldNot, Refused, run
from microfin_tools.cli.output import print_text

topic = typer.Typer(no_args_is_help=True, help="The commands topic in Kafka.")

_NEEDED: Final = {
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "unclean.leader.election.enable": "false",
}
"""docs/reference/wire-format.md says why."""

_DEFAULTS: Final = {"max.message.bytes": str(1024 * 1024)}


@topic.callback()
def describe() -> None:
    """The commands topic in Kafka."""


@topic.command()
def grow(
    partitions: Annotated[int, typer.Option(min=1, help="How many partitions it should have.")],
    replicas: Annotated[
        int, typer.Option(min=1, help="On how many brokers each partition is, if the topic is new.")
    ] = 3,
    config: Annotated[
        list[str] | None,
        typer.Option(help="A setting NAME=VALUE as well as those that microfin needs; repeatable."),
    ] = None,
    existing: Annotated[
        bool,
        typer.Option(
            "--existing",
            help="Fail if there is no topic: a new one would be empty, and commands would be lost.",
        ),
    ] = False,
) -> None:
    """Create the commands topic, or give it more partitions.

    A topic that has this number of partitions or more does not change: partitions never shrink.
    `microfin routing grow` spreads accounts over the new partitions, when each has its worker. Safe
    to run twice. In Kubernetes without Strimzi, the operator runs it.

    \b
    Examples:
      microfin topic grow --partitions 6
      microfin topic grow --partitions 6 --replicas 3 --config min.insync.replicas=2
    """
    grown = _grow(
        CommonSettings(), partitions, replicas, _configuration(config or []), existing=existing
    )
    run(grown)


def _configuration(given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    wrong = next((name for name, sign, _ in pairs if not (name and sign)), None)
    if wrong is not None:
        raise typer.BadParameter(f"{wrong!r} is no setting: write --config NAME=VALUE")
    return {**_DEFAULTS, **{name: value for name, _, value in pairs}, **_NEEDED}


async def _grow(
    settings: CommonSettings,
    partitions: int,
    replicas: int,
    configuration: dict[str, str],
    *,
    existing: bool,
) -> None:
    administrator = AIOKafkaAdminClient(**connection_options(settings, "microfin-cli"))
    try:
        try:
            await administrator.start()
        except KafkaError as error:
            raise CouldNot(
                f"Kafka did not answer at {settings.kafka} ({tls_fault(KAFKA) or repr(error)}): is "
                "it running, and is MICROFIN_KAFKA right?"
            ) from error
        if existing:
            await _must_exist(administrator, settings.topic)
        elif await _create(administrator, settings.topic, partitions, replicas, configuration):
            print_text(f"made {settings.topic} with {partitions} partitions")
            return
        there = await _count(administrator, settings.topic)
        if there >= partitions:
            print_text(f"{settings.topic} has {there} partitions")
            return
        await _widen(administrator, settings.topic, partitions)
        print_text(f"grew {settings.topic} from {there} to {partitions} partitions")
    finally:
        await administrator.close()


async def _must_exist(administrator: AIOKafkaAdminClient, name: str) -> None:
    if not await _count(administrator, name):
        raise Refused(
            f"Kafka has no topic {name}, though it had: its commands may be lost, and a new topic "
            "would be empty. See docs/runbooks/topic-gone.md"
        )


async def _create(
    administrator: AIOKafkaAdminClient,
    name: str,
    partitions: int,
    replicas: int,
    configuration: dict[str, str],
) -> bool:
    """Create the topic; return False if it exists already."""
    new = NewTopic(name, partitions, replicas, topic_configs=configuration)
    response = await administrator.create_topics([new])
    code, message = response.topic_errors[0][1:3]
    if code and for_code(code) is TopicAlreadyExistsError:
        return False
    if code:
        raise Refused(f"Kafka would not make {name}: {for_code(code).__name__}: {message}")
    return True


async def _count(administrator: AIOKafkaAdminClient, name: str) -> int:
    (described,) = await administrator.describe_topics([name])
    return len(described["partitions"])


async def _widen(administrator: AIOKafkaAdminClient, name: str, partitions: int) -> None:
    response = await administrator.create_partitions({name: NewPartitions(partitions)})
    _, code, message = response.topic_errors[0][:3]
    if code:
        raise Refused(f"Kafka would not grow {name}: {for_code(code).__name__}: {message}")
