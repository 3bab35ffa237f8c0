"""Enforces the policies of KUBECONFIG's cluster on this machine, its only node, until SIGTERM.

Prints what was refused, each flow once, and leaves no rules behind.
"""

import argparse
import asyncio
import contextlib
import signal
import time

from network_policies import nftables
from network_policies.policies import Cluster, Node, isolations, read_pods
from network_policies.ruleset import chains, ruleset
from network_policies.watch import Watch

_GATHER_SECONDS = 0.03
"""Changes come in bursts: all labels of a Deployment's pods, all rules of a chart."""
_REFUSALS_SECONDS = 2.0


class Agent:
    """Watches the cluster and replaces the rules after each change."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._changed = asyncio.Event()
        self._namespaces = Watch("/api/v1/namespaces", self._changed.set)
        self._pods = Watch("/api/v1/pods", self._changed.set)
        self._policies = Watch("/apis/networking.k8s.io/v1/networkpolicies", self._changed.set)
        self._loaded = ""
        self._chains: frozenset[str] = frozenset()
        self._names: dict[str, str] = {node.address: "the node"}
        self._reported: set[nftables.Refusal] = set()

    async def run(self) -> None:
        """Enforce until it is cancelled."""
        await nftables.remove()
        async with asyncio.TaskGroup() as tasks:
            for watch in (self._namespaces, self._pods, self._policies):
                tasks.create_task(watch.run())
            tasks.create_task(self._enforce())
            tasks.create_task(self._report())

    async def _enforce(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._changed.clear()
            if all(it.complete for it in (self._namespaces, self._pods, self._policies)):
                await self._replace()

    async def _replace(self) -> None:
        cluster = Cluster(
            self._node,
            {
                it["metadata"]["name"]: it["metadata"].get("labels") or {}
                for it in self._namespaces.items
            },
            read_pods(self._pods.items),
            list(self._policies.items),
        )
        self._names |= {
            it["status"]["podIP"]: f"{it['metadata']['namespace']}/{it['metadata']['name']}"
            for it in self._pods.items
            if it["status"].get("podIP", self._node.address) != self._node.address
        }
        isolated = isolations(cluster)
        # Most changes of pods, such as their readiness, change no rule.
        if (wanted := ruleset(isolated, ())) == self._loaded:
            return
        await nftables.load(ruleset(isolated, self._chains))
        if not self._loaded:
            print("enforcing", flush=True)
        self._loaded, self._chains = wanted, chains(isolated)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REFUSALS_SECONDS)
            if not self._loaded:
                continue
            for refusal in sorted(await nftables.refusals() - self._reported):
                self._reported.add(refusal)
                source, destination, protocol, port = refusal
                print(
                    f"{time.strftime('%H:%M:%S')} refused: {self._name(source)} to "
                    f"{self._name(destination)}, {port}/{protocol}",
                    flush=True,
                )

    def _name(self, address: str) -> str:
        return self._names.get(address, address)


def _port_pair(text: str) -> tuple[int, int]:
    asked, _, answering = text.partition("=")
    return int(asked), int(answering)


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="network_policies", description=__doc__)
    parser.add_argument("--node", required=True, help="the node's address")
    parser.add_argument(
        "--node-port",
        type=_port_pair,
        action="append",
        default=[],
        metavar="ASKED=ANSWERING",
        help="a Service's port that a process of the node itself answers at another port",
    )
    arguments = parser.parse_args()
    agent = Agent(Node(arguments.node, dict(arguments.node_port)))
    running = asyncio.ensure_future(agent.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        await nftables.remove()


if __name__ == "__main__":
    asyncio.run(_main())
