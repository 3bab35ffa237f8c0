"""What Kafka's Secrets hold, and what of it a bank's pods have."""

from typing import Final

from e2e.kubernetes_bank import Bank
from e2e.kubernetes_cluster import get, until
from e2e.strimzi.broker import refresh
from e2e.strimzi.secrets import decoded
from microfin_deploy.platform import ExistingKafka

_USERS: Final = {"worker": "microfin-worker", "api": "microfin-api"}


async def pods_have_the_files(bank: Bank, kafka: ExistingKafka) -> None:
    """Wait until each pod has what Strimzi has written last.

    A kubelet brings it within a minute or two; here an annotation makes it look.
    """
    originals = {"microfin-cluster-ca-cert": kafka.authority} | {
        user: f"{bank.namespace}-{user}" for user in _USERS.values()
    }
    await until("renewed certificates", lambda: _are_of_the_authority(bank, kafka))
    await until("the copies", lambda: _are_copied(originals, bank, kafka))
    for component, user in _USERS.items():
        wanted = _files(bank, user)
        pods = bank.pods(f"app.kubernetes.io/component={component}")
        refresh(bank.namespace, *pods)
        for pod in pods:
            await until(
                f"the files of {pod}",
                lambda pod=pod, wanted=wanted: _files_of(bank, pod) == wanted,  # type: ignore[misc]
            )


def _data(name: str, namespace: str) -> dict[str, bytes]:
    return decoded(get(f"secret/{name}", namespace))


def _are_of_the_authority(bank: Bank, kafka: ExistingKafka) -> bool:
    authority = _data(f"{kafka.name}-clients-ca-cert", kafka.namespace)["ca.crt"]
    return all(
        _data(f"{bank.namespace}-{user}", kafka.namespace)["ca.crt"] == authority
        for user in _USERS.values()
    )


def _are_copied(originals: dict[str, str], bank: Bank, kafka: ExistingKafka) -> bool:
    return all(
        _data(copy, bank.namespace) == _data(original, kafka.namespace)
        for copy, original in originals.items()
    )


def _files(bank: Bank, user: str) -> str:
    authorities = _data("microfin-cluster-ca-cert", bank.namespace)
    trusted = b"".join(authorities[name] for name in sorted(authorities))
    return (trusted + _data(user, bank.namespace)["user.crt"]).decode()


def _files_of(bank: Bank, pod: str) -> str:
    show = "cat /run/kafka-ca/*.crt /run/microfin/kafka-user.crt"
    return bank.kubectl("exec", pod, "--", "sh", "-c", show)
