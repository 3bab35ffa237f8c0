"""The built images hold their pins and our packages, and nothing else."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from e2e import kubernetes_cluster
from e2e.kubernetes_bank import TAG
from e2e.kubernetes_cluster import apply, get, kubectl, until
from source.image_pins import TOOLS_ONLY, pins

pytestmark = pytest.mark.timeout(180)

OURS = {
    "api": {"microfin", "microfin-api"},
    "worker": {"microfin", "microfin-worker", "microfin-tools"},
    "operator": {"microfin-operator"},
}
LIST = """
import json, re
from importlib.metadata import distributions

def name(one):
    return re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()

print(json.dumps({name(one): one.version for one in distributions()}))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace() -> AsyncIterator[str]:
    async with kubernetes_cluster.own_namespace() as name:
        yield name


@pytest.mark.parametrize("image", OURS)
async def test_an_image_holds_its_pins_and_our_packages(namespace: str, image: str) -> None:
    held = await packages(namespace, image)
    pinned = {
        name: str(pin.specifier).removeprefix("==")
        for name, pin in pins(image).items()
        if pin.marker is None or pin.marker.evaluate()
    }
    assert {name: version for name, version in held.items() if name not in OURS[image]} == pinned
    assert OURS[image] <= held.keys()


async def test_the_apis_image_holds_no_tool(namespace: str) -> None:
    """A stranger who breaks into the API finds no migrations and no command line of the bank."""
    held = await packages(namespace, "api")
    assert not (TOOLS_ONLY | {"microfin-tools", "pip"}) & held.keys()


async def packages(namespace: str, image: str) -> dict[str, str]:
    """Return the packages in an image, with their versions, as its own interpreter finds them."""
    name = f"packages-of-{image}"
    kubectl("-n", namespace, "delete", "pod", name, "--ignore-not-found")
    apply(pod(namespace, name, f"ghcr.io/microfin/{image}:{TAG}"))

    def has_ended() -> bool:
        return get(f"pod/{name}", namespace)["status"].get("phase") in ("Succeeded", "Failed")

    await until(f"the list of {image}'s packages", has_ended, patience=60)
    printed = kubectl("-n", namespace, "logs", name)
    assert get(f"pod/{name}", namespace)["status"]["phase"] == "Succeeded", printed
    listed: dict[str, str] = json.loads(printed)
    return listed


def pod(namespace: str, name: str, image: str) -> dict[str, Any]:
    """Return a pod that prints the packages of its image."""
    container = {
        "name": "packages",
        "image": image,
        "command": ["python", "-c", LIST],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }
