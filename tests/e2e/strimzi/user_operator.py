"""The User Operator: a certificate and the ACLs of each KafkaUser."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from aiokafka.errors import KafkaError

from e2e.kubernetes_cluster import kubectl
from e2e.strimzi import CLUSTER, NAMESPACE
from e2e.strimzi.broker import administrator
from e2e.strimzi.secrets import decoded, put, secret
from network_policies.watch import Watch
from support.certificates import Authority
from support.kafka_users import Right, rights, set_rights

Item = dict[str, Any]

_USERS: Final = f"/apis/kafka.strimzi.io/v1/namespaces/{NAMESPACE}/kafkausers"
_SECRETS: Final = f"/api/v1/namespaces/{NAMESPACE}/secrets"
_GATHER_SECONDS: Final = 0.1
_KIND: Final = "kafkausers.kafka.strimzi.io"
_MANAGER: Final = "strimzi-user-operator"
_NAME: Final = {"app.kubernetes.io/managed-by": _MANAGER, "app.kubernetes.io/name": _MANAGER}


class UserOperator:
    """Acts on the KafkaUsers of Kafka's namespace, until it is cancelled."""

    def __init__(self) -> None:
        self._rights: set[Right] | None = None
        self._changed = asyncio.Event()
        self._users = Watch(_USERS, self._changed.set)
        self._secrets = Watch(_SECRETS, self._changed.set)

    async def run(self) -> None:
        """Act after each change."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._users.run())
            tasks.create_task(self._secrets.run())
            tasks.create_task(self._act_for_ever())

    async def _act_for_ever(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._changed.clear()
            if not self._users.complete or not self._secrets.complete:
                continue
            try:
                await self._act(_ours(self._users), _ours(self._secrets))
            except (AssertionError, KafkaError, OSError) as error:  # the broker restarts
                print(f"tries again: {error!r}", flush=True)
                await asyncio.sleep(1)
                self._changed.set()

    async def _act(self, users: list[Item], secrets: list[Item]) -> None:
        """Issue and renew certificates; give and take rights."""
        held = {it["metadata"]["name"]: decoded(it) for it in secrets}
        authority = Authority.load(
            held[f"{CLUSTER}-clients-ca-cert"]["ca.crt"], held[f"{CLUSTER}-clients-ca"]["ca.key"]
        )
        for user in users:
            if held.get(_name(user), {}).get("ca.crt") != authority.certificate:
                put(_secret(user, authority), manager=_MANAGER)
        wanted = set[Right]().union(*map(_rights, users))
        if wanted != self._rights:
            async with administrator() as client:
                await set_rights(client, wanted)
            self._rights = wanted
        for user in users:
            if user.get("status", {}).get("observedGeneration") != user["metadata"]["generation"]:
                _report(user)


def _ours(watch: Watch) -> list[Item]:
    return [
        it
        for it in watch.items
        if it["metadata"].get("labels", {}).get("strimzi.io/cluster") == CLUSTER
    ]


def _name(user: Item) -> str:
    return str(user["metadata"]["name"])


def _rights(user: Item) -> set[Right]:
    return rights(_name(user), user["spec"]["authorization"]["acls"])


def _secret(user: Item, authority: Authority) -> Item:
    issued, password = authority.issue(_name(user)), uuid4().hex
    data = {
        "ca.crt": authority.certificate,
        "user.crt": issued.certificate,
        "user.key": issued.key,
        "user.p12": issued.pkcs12(password),
        "user.password": password.encode(),
    }
    metadata = user["metadata"]
    own = {"app.kubernetes.io/instance": _name(user), "strimzi.io/kind": "KafkaUser"}
    owner = {key: user[key] for key in ("apiVersion", "kind")}
    owner |= {key: metadata[key] for key in ("name", "uid")}
    owner |= {"blockOwnerDeletion": False, "controller": False}
    part = {"app.kubernetes.io/part-of": f"strimzi-{_name(user)}"}
    labels = {**metadata["labels"], **_NAME, **own, **part}
    return secret(_name(user), data, labels=labels, ownerReferences=[owner])


def _report(user: Item) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    status = {
        "observedGeneration": user["metadata"]["generation"],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        "username": f"CN={_name(user)}",
        "secret": _name(user),
    }
    what = ("patch", _KIND, _name(user), "--subresource=status", "--type=merge")
    change = json.dumps({"status": status})
    kubectl("-n", NAMESPACE, *what, "-p", change, check=False)  # it may be gone by now
