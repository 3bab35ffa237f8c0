"""A Redis Cluster of real nodes on loopback, each kept together by the chart's own scripts.

What Kubernetes gives a pod is imitated: a folder for its volumes, an address of 127/8, and a
resolver (`getent`) that knows where each name is now. Redis and the scripts are the real ones.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trustme

from support.waiting import until_blocking

FILES: Final = Path(__file__).resolve().parents[2] / "charts/microfin-data/files"
DOMAIN: Final = "microfin-redis.bank.svc"
PASSWORD: Final = 'a "password" \\ of 40'
_GETENT: Final = '#!/bin/sh\ngrep " $2\\$" "$HOSTS"\n'


class KeptCluster:
    """Pods `microfin-redis-0` and so on, each with a node and its keeper."""

    def __init__(self, folder: Path, authority: trustme.CA | None = None) -> None:
        """With an authority the nodes speak TLS, with certificates of it."""
        self._folder = folder
        self._authority = authority
        self._hosts = folder / "hosts"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.addresses: list[str] = []
        program = folder / "bin/getent"
        program.parent.mkdir(parents=True)
        program.write_text(_GETENT, encoding="utf-8")
        program.chmod(0o755)

    def start(self, addresses: list[str], only: int | None = None) -> None:
        """Start a pod at each address, or only one of them."""
        self.addresses = addresses
        names = (f"{address} microfin-redis-{pod}.{DOMAIN}\n" for pod, address in self._pods())
        self._hosts.write_text("".join(names), encoding="utf-8")
        for pod, address in self._pods():
            if only not in (None, pod):
                continue
            home = self._prepare(pod, address)
            self._run(pod, home, "start.sh")
            self._run(pod, home, "keep.sh")

    def certify(self, authority: trustme.CA) -> None:
        """Give each pod a new certificate of an authority, as a volume of a Secret does."""
        self._authority = authority
        for pod, _ in self._pods():
            self._write_certificate(pod, authority)

    def kill(self) -> None:
        """Kill all pods at once."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def lose_volume(self, pod: int) -> None:
        """Empty a pod's volume, while it does not run."""
        shutil.rmtree(self._home(pod) / "data")

    def ready(self, pod: int) -> bool:
        """Whether the pod's readiness probe succeeds."""
        return self._script(pod, "ready.sh").returncode == 0

    def refuse_once(self, word: str) -> None:
        """Have the next command with this word in it refused, whichever script gives it."""
        mark, program = self._folder / "refuse", self._folder / "bin/redis-cli"
        mark.touch()
        real = shutil.which("redis-cli")
        text = f'#!/bin/sh\ncase "$*" in *{word}*) rm {mark} 2>/dev/null && exit 1 ;; esac\n'
        program.write_text(f'{text}exec {real} "$@"\n', encoding="utf-8")
        program.chmod(0o755)

    def first_processes(self) -> list[int]:
        """Return the ids of the first processes of the nodes' containers."""
        return [it.pid for it in self._processes if str(it.args[1]).endswith("start.sh")]  # type: ignore[index]

    def leave(self, pod: int) -> None:
        """Do what is done before a pod is stopped."""
        assert self._script(pod, "leave.sh").returncode == 0

    def ask(self, pod: int, *command: str) -> str:
        """Return a node's answer, as text."""
        login = ("-h", _plain(self.addresses[pod]), "--user", "microfin_admin")
        done = subprocess.run(
            ["redis-cli", *self._trust(pod), *login, *command],
            env={**os.environ, "REDISCLI_AUTH": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
        return done.stdout.strip()

    def roles(self, seen_by: int = 0) -> dict[str, tuple[str, str, str]]:
        """Return role, address and slots of each pod's node, as one of them sees it."""
        found = {}
        for line in self.ask(seen_by, "CLUSTER", "NODES").splitlines():
            fields = line.split()
            address, _, host = fields[1].partition(",")
            role = "replica" if "slave" in fields[2] else "master"
            slots = " ".join(fields[8:])
            found[host.partition(".")[0]] = (role, address.rpartition(":")[0], slots)
        return found

    def is_whole(self) -> bool:
        """Whether all are ready and see the same cluster: all slots, no strangers."""
        count = len(self.addresses)
        if not all(self.ready(pod) for pod in range(count)):
            return False
        wanted = ("cluster_state:ok", "cluster_slots_ok:16384", f"cluster_known_nodes:{count}")
        for pod in range(count):
            lines = self.ask(pod, "CLUSTER", "INFO").splitlines()
            if not all(line in lines for line in wanted):
                return False
        views = [self.roles(pod) for pod in range(count)]
        return all(view == views[0] for view in views)

    def said(self, pod: int) -> str:
        """Return what the pod's keeper said."""
        return (self._home(pod) / "keep.sh.log").read_text(encoding="utf-8")

    def _pods(self) -> list[tuple[int, str]]:
        return list(enumerate(self.addresses))

    def _home(self, pod: int) -> Path:
        return self._folder / str(pod)

    def _prepare(self, pod: int, address: str) -> Path:
        """Lay out what a pod finds in its volumes, under its own folder."""
        home = self._home(pod)
        for name in ("etc", "run", "data", "tls"):
            (home / name).mkdir(parents=True, exist_ok=True)
        if self._authority is not None:
            self._write_certificate(pod, self._authority)
        for name in ("common", "start", "run", "keep", "ready", "leave"):
            text = (FILES / f"redis-{name}.sh").read_text(encoding="utf-8")
            # Debian 12's Redis 7.0 does not know the command yet.
            text = text.replace(" +client|setinfo", "")
            for loopback in ("127.0.0.1", "::1"):
                text = text.replace(f"LOCAL={loopback}", f"LOCAL={address}")
            (home / f"etc/{name}.sh").write_text(_moved(text, home), encoding="utf-8")
        settings = _moved((FILES / "redis.conf").read_text(encoding="utf-8"), home)
        settings = settings.replace("bind * -::*", f"bind {_plain(address)}").replace(
            "MAX_MEMORY", "16mb"
        )
        (home / "etc/redis.conf").write_text(settings, encoding="utf-8")
        return home

    def _environment(self, pod: int) -> dict[str, str]:
        return {
            "PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}",
            "HOSTS": str(self._hosts),
            "POD_NAME": f"microfin-redis-{pod}",
            "POD_IP": self.addresses[pod],
            "DOMAIN": DOMAIN,
            "NODES": str(len(self.addresses)),
            "REDISCLI_AUTH": PASSWORD,
            "WORKER_PASSWORD": "worker",
            "API_PASSWORD": "api",
            "METRICS_PASSWORD": "metrics",
            "TLS": str(self._home(pod) / "tls") if self._authority else "",
        }

    def _trust(self, pod: int) -> list[str]:
        folder = self._home(pod) / "tls"
        return ["--tls", "--cacert", str(folder / "ca.crt")] if self._authority else []

    def _write_certificate(self, pod: int, authority: trustme.CA) -> None:
        service, _, rest = DOMAIN.partition(".")
        made = authority.issue_cert(f"{service}.{rest}", f"*.{DOMAIN}")
        files = {
            "tls.crt": made.cert_chain_pems[0].bytes(),
            "tls.key": made.private_key_pem.bytes(),
            "ca.crt": authority.cert_pem.bytes(),
        }
        for name, content in files.items():
            (self._home(pod) / "tls" / name).write_bytes(content)

    def _run(self, pod: int, home: Path, script: str) -> None:
        with (home / f"{script}.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", str(home / "etc" / script)],
                env=self._environment(pod),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)

    def _script(self, pod: int, script: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["sh", str(self._home(pod) / "etc" / script)],
            env=self._environment(pod),
            capture_output=True,
            check=False,
            timeout=20,
        )


@contextlib.contextmanager
def running_cluster(
    folder: Path, addresses: list[str], authority: trustme.CA | None = None
) -> Iterator[KeptCluster]:
    """Give a cluster that is whole, one pod at each address; it ends with the block."""
    made = KeptCluster(folder, authority)
    try:
        made.start(addresses)
        until_blocking("the cluster", made.is_whole, seconds=40)
        yield made
    finally:
        made.kill()


def _plain(address: str) -> str:
    """Return the IPv4 address at which a node listens that is known by a mapped IPv6 address."""
    return address.removeprefix("::ffff:")


def _moved(text: str, home: Path) -> str:
    text = text.replace("/etc/redis", f"{home}/etc").replace("/run/redis", f"{home}/run")
    return text.replace("/data/", f"{home}/data/").replace("dir /data\n", f"dir {home}/data\n")
