"""The User Operator: a certificate and the ACLs of each KafkaUser."""

import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from e2e.kubernetes_cluster import kubectl
from e2e.strimzi import CLUSTER, NAMESPACE
from e2e.strimzi.authorities import StoredAuthority
from e2e.strimzi.broker import administrator
from e2e.strimzi.secrets import decoded, put, secret
from support.certificates import Authority
from support.kafka_users import Right, rights, set_rights

Item = dict[str, Any]

_KIND: Final = "kafkausers.kafka.strimzi.io"
_MANAGER: Final = "strimzi-user-operator"
_NAME: Final = {"app.kubernetes.io/managed-by": _MANAGER, "app.kubernetes.io/name": _MANAGER}


class UserOperator:
    """Acts on the KafkaUsers of Kafka's namespace."""

    def __init__(self) -> None:
        self._rights: set[Right] | None = None

    async def act(self) -> None:
        """Issue and renew certificates; give and take rights."""
        users = _listed(_KIND)
        authority = StoredAuthority.load("clients").current
        held = {it["metadata"]["name"]: decoded(it) for it in _listed("secrets")}
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


def _listed(kind: str) -> list[Item]:
    label = f"strimzi.io/cluster={CLUSTER}"
    printed = kubectl("-n", NAMESPACE, "get", kind, "-l", label, "-o", "json")
    items: list[Item] = json.loads(printed)["items"]
    return items


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
