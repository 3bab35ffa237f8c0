"""The way into a bank from outside of its cluster: a port on loopback that kubectl forwards."""

import asyncio
import contextlib
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

from e2e.kubernetes_bank import Bank
from e2e.kubernetes_cluster import kubectl

_CONTROLLER = "app.kubernetes.io/component=controller"


@contextlib.asynccontextmanager
async def way_in(bank: Bank) -> AsyncIterator[tuple[str, str]]:
    """Give URL and the host to name: an ingress controller's where one serves, else the API's."""
    namespace, service, host = bank.namespace, "service/microfin-api", "microfin-api"
    if bank.platform.ingress_class:
        namespace, service = _controller()
        host = bank.wanted.host
    place = ("-n", namespace, "port-forward", "--address=127.0.0.1", service, ":80")
    forward = await asyncio.create_subprocess_exec("kubectl", *place, stdout=PIPE)
    assert forward.stdout is not None
    try:
        line = (await asyncio.wait_for(forward.stdout.readline(), 30)).decode()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found is not None, line
        yield f"http://127.0.0.1:{found[1]}", host
    finally:
        forward.terminate()
        await forward.wait()


def _controller() -> tuple[str, str]:
    listed = json.loads(kubectl("get", "services", "-A", "-l", _CONTROLLER, "-o", "json"))["items"]
    # Its webhook has a Service with the same labels.
    serving = [it for it in listed if any(port["port"] == 80 for port in it["spec"]["ports"])]
    metadata = serving[0]["metadata"]
    return metadata["namespace"], f"service/{metadata['name']}"
