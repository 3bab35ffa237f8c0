"""The users of Kafka that the chart microfin-data makes, and their rights, as ACLs of a broker."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

_TEMPLATE: Final = Path(__file__).parents[2] / "charts/microfin-data/templates/kafka-users.yaml"
_USER: Final = re.compile(
    r'include "microfin-data\.kafka\.user" \(dict "root" \. "name" "(?P<name>\w+)"'
    r' "topic" \(list(?P<operations>(?: "\w+")+)\)(?P<group> "group" true)?\)'
)

# Numbers of Kafka's protocol.
_KINDS: Final = {"topic": 2, "group": 3, "cluster": 4}
_PATTERNS: Final = {"literal": 3, "prefix": 4}
_ALLOW: Final = 3
_ANY: Final = 1
_OPERATIONS: Final = {
    name: number
    for number, name in enumerate(
        ("All", "Read", "Write", "Create", "Delete", "Alter", "Describe", "ClusterAction",
         "DescribeConfigs", "AlterConfigs", "IdempotentWrite"), 2,
    )
}  # fmt: skip


_ACTS: Final = {"Write": "produce", "Read": "fetch", "Describe": "see_the_end", "Delete": "trim"}


class Right(NamedTuple):
    """One ACL: who may do what with what, from anywhere. Numbers are those of Kafka's protocol."""

    principal: str
    kind: int
    name: str
    pattern: int
    operation: int


class KafkaUser(msgspec.Struct, frozen=True):
    """A KafkaUser of the chart: `CN=microfin-{name}`, and what it may do with the topic."""

    name: str
    operations: tuple[str, ...]
    group: bool

    @property
    def common_name(self) -> str:
        """What Strimzi writes into the user's certificate."""
        return f"microfin-{self.name}"

    def rights(self, topic: str) -> set[Right]:
        """Return its ACLs."""
        rules: list[dict[str, Any]] = [
            {"resource": {"type": "topic", "name": topic}, "operations": self.operations}
        ]
        if self.group:
            group = {"type": "group", "name": "microfin-workers"}
            rules.append({"resource": group, "operations": ["Read"]})
        return rights(self.common_name, rules)


def users() -> list[KafkaUser]:
    """Return the users as the chart's template has them."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    found = [
        KafkaUser(it["name"], tuple(re.findall(r"\w+", it["operations"])), bool(it["group"]))
        for it in _USER.finditer(text)
    ]
    assert len(found) == text.count('include "microfin-data.kafka.user"') > 0, "read it otherwise"
    return found


def acts_of(users: Iterable[KafkaUser]) -> dict[str, set[str]]:
    """Return the acts of `kafka_acts` that each user may do, by the users' names."""
    return {
        user.name: {_ACTS[operation] for operation in user.operations}
        | ({"commit_the_lag"} if user.group else set())
        for user in users
    }


def rights(common_name: str, acls: Iterable[dict[str, Any]]) -> set[Right]:
    """Return the ACLs of a KafkaUser's `spec.authorization.acls`."""
    return {
        Right(
            f"User:CN={common_name}",
            _KINDS[rule["resource"]["type"]],
            rule["resource"].get("name", "kafka-cluster"),
            _PATTERNS[rule["resource"].get("patternType", "literal")],
            _OPERATIONS[operation],
        )
        for rule in acls
        for operation in rule["operations"]
    }


async def give_rights(bootstrap: str, topic: str) -> None:
    """Give the chart's users their rights on `topic`, beside those that they have.

    `bootstrap` is a listener whose clients may do everything.
    """
    administrator = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await administrator.start()
    try:
        for user in users():
            await _give(administrator, user.rights(topic))
    finally:
        await administrator.close()


async def set_rights(administrator: AIOKafkaAdminClient, wanted: set[Right]) -> None:
    """Let the broker have these ACLs and no others, as Strimzi's user operator does."""
    there = await _rights(administrator)
    await _give(administrator, wanted - there)
    for right in there - wanted:
        response = await administrator._send_to_controller(DeleteAclsRequest(*_words(right)))
        assert response.filter_responses[0][0] == 0, response


async def _give(administrator: AIOKafkaAdminClient, added: Iterable[Right]) -> None:
    for right in added:
        response = await administrator._send_to_controller(CreateAclsRequest(*_words(right)))
        assert response.creation_responses[0][0] == 0, response


def _words(right: Right) -> tuple[int, str, int, str, str, int, int]:
    anywhere = "*"
    what = (right.kind, right.name, right.pattern)
    return (*what, right.principal, anywhere, right.operation, _ALLOW)


async def _rights(administrator: AIOKafkaAdminClient) -> set[Right]:
    request = DescribeAclsRequest(_ANY, None, _ANY, None, None, _ANY, _ANY)
    described = await administrator._send_to_controller(request)
    assert described.error_code == 0, described
    return {
        Right(principal, kind, name, pattern, operation)
        for kind, name, pattern, acls in described.resources
        for principal, _, operation, _ in acls
    }
