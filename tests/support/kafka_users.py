"""The users of Kafka that the chart microfin-data makes, and their rights, as ACLs of a broker."""

import re
from pathlib import Path
from typing import Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

_TEMPLATE: Final = Path(__file__).parents[2] / "charts/microfin-data/templates/kafka-users.yaml"
_USER: Final = re.compile(
    r'include "microfin-data\.kafka\.user" \(dict "root" \. "name" "(?P<name>\w+)"'
    r' "topic" \(list(?P<operations>(?: "\w+")+)\)(?P<group> "group" true)?\)'
)

_TOPIC, _GROUP = 2, 3  # kinds of resources in Kafka's protocol
_LITERAL, _ALLOW = 3, 3
_OPERATIONS: Final = {
    name: number
    for number, name in enumerate(
        ("All", "Read", "Write", "Create", "Delete", "Alter", "Describe", "ClusterAction",
         "DescribeConfigs", "AlterConfigs", "IdempotentWrite"), 2,
    )
}  # fmt: skip


class KafkaUser(msgspec.Struct, frozen=True):
    """A KafkaUser of the chart: `CN=microfin-{name}`, and what it may do with the topic."""

    name: str
    operations: tuple[str, ...]
    group: bool

    @property
    def common_name(self) -> str:
        """What Strimzi writes into the user's certificate."""
        return f"microfin-{self.name}"


def users() -> list[KafkaUser]:
    """Return the users as the chart's template has them."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    found = [
        KafkaUser(it["name"], tuple(re.findall(r"\w+", it["operations"])), bool(it["group"]))
        for it in _USER.finditer(text)
    ]
    assert len(found) == text.count('include "microfin-data.kafka.user"') > 0, "read it otherwise"
    return found


async def give_rights(bootstrap: str, topic: str) -> None:
    """Give the chart's users their rights on `topic`, as Strimzi's user operator does.

    `bootstrap` is a listener whose clients may do everything.
    """
    administrator = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await administrator.start()
    try:
        for user in users():
            rights = [(_TOPIC, topic, operation) for operation in user.operations]
            rights += [(_GROUP, "microfin-workers", "Read")] * user.group
            for kind, name, operation in rights:
                response = await administrator._send_to_controller(
                    CreateAclsRequest(
                        kind, name, _LITERAL, f"User:CN={user.common_name}", "*",
                        _OPERATIONS[operation], _ALLOW,
                    )
                )  # fmt: skip
                assert response.creation_responses[0][0] == 0, response
    finally:
        await administrator.close()
