"""The chart microfin-data on a cluster with CloudNativePG's operator and Strimzi's definitions.

Strimzi's operator is not there: its objects are judged by the API server. PostgreSQL, poolers and
Redis run as values-dev.yaml makes them.
"""

import base64
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
import trustme

from e2e import data_client, kafka_user, kubernetes_cluster
from e2e.data_chart import CHART, DEV, PRODUCTION, rendered
from e2e.figures import figure
from e2e.kubernetes_cluster import ROOT, get, kubectl, until
from e2e.rendered_chart import objects
from microfin_tools.migrations.run import ROLES

pytestmark = pytest.mark.timeout(300)

RELEASE: Final = "data"
REDIS: Final = "app.kubernetes.io/name=microfin-redis"
BACKUP: Final = ("postgres.backup.enabled=true", "postgres.backup.objectStore=store")
UNWATCHED: Final = ("metrics.podMonitors.enabled=false", "metrics.rules.enabled=false")


def helm(*arguments: str) -> str:
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def upgrade(namespace: str, *values: str) -> list[str]:
    """Return the arguments that install or upgrade the chart, without a Kafka."""
    always = ("kafka.enabled=false", data_client.ADMITTED)
    sets = [part for value in (*always, *values) for part in ("--set", value)]
    release = ("upgrade", "--install", RELEASE, str(CHART), "--namespace", namespace)
    return [*release, "--values", str(DEV), *sets]


def refusal(namespace: str, *values: str) -> str:
    """Return what helm says to an upgrade that it refuses."""
    command = ["helm", *upgrade(namespace, *values)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    return done.stderr


def deploy(namespace: str, *values: str) -> None:
    """Install or upgrade the chart, without a Kafka."""
    helm(*upgrade(namespace, *values))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def namespace() -> AsyncIterator[str]:
    """A namespace in which the chart was installed, and waited for as its notes say."""
    async with kubernetes_cluster.own_namespace() as name:
        began = time.monotonic()
        deploy(name)
        for line in waiting(name):
            kubectl(*line.split()[1:])
        figure(f"PostgreSQL, its pooler and Redis ready after {time.monotonic() - began:.1f} s")
        with kafka_user.user_of(name):
            data_client.start(name, kafka_user.topic_of(name, "data"))
            data_client.microfin(name, "migrate", "--partitions", "1")
            yield name


def waiting(namespace: str) -> list[str]:
    """Return the commands by which the chart's notes say to wait."""
    notes = helm("get", "notes", RELEASE, "--namespace", namespace)
    lines = re.findall(r"^ +(kubectl .*)$", notes, re.MULTILINE)
    assert len(lines) == 3, notes
    return lines


@pytest.mark.parametrize(
    ("files", "values"),
    [
        ((), ()),
        ((DEV,), ()),
        ((PRODUCTION,), (*UNWATCHED, "postgres.shards=2", *BACKUP)),
    ],
    ids=["default", "development", "production"],
)
async def test_the_api_server_accepts_all_manifests(
    files: tuple[Path, ...], values: tuple[str, ...]
) -> None:
    """Those of the Prometheus operator excepted, whose definitions are not there."""
    async with kubernetes_cluster.own_namespace() as name:
        kubectl("label", "namespace", name, "pod-security.kubernetes.io/warn=restricted")
        text = rendered(*values, files=files, namespace=name)
        printed = kubectl(
            *("-n", name, "apply", "--dry-run=server", "--validate=strict", "-f", "-"),
            stdin=text,
            check=False,
        )
    lines = [line for line in printed.splitlines() if line]
    assert len(lines) == len(re.findall("^kind: ", text, re.MULTILINE))
    assert all(line.endswith("created (server dry run)") for line in lines), printed


VENDORS: Final = ("postgresql.cnpg.io/", "kafka.strimzi.io/")


@pytest.mark.parametrize(
    ("files", "values"),
    [((DEV,), ()), ((PRODUCTION,), (*UNWATCHED, *BACKUP))],
    ids=["development", "production"],
)
async def test_git_and_the_cluster_agree(files: tuple[Path, ...], values: tuple[str, ...]) -> None:
    """Definitions and webhooks fill in nothing that the chart does not render, so that no tool
    finds differences for ever. docs/guide/gitops.md names two exceptions."""
    async with kubernetes_cluster.own_namespace() as name:
        for item in objects(rendered(*values, files=files, namespace=name)):
            if item["apiVersion"].startswith(VENDORS):
                create = ("-n", name, "create", "--dry-run=server", "-o", "json", "-f", "-")
                live = json.loads(kubectl(*create, stdin=json.dumps(item)))
                filled_in = list(_filled_in(item["spec"], live["spec"], item["kind"]))
                assert filled_in == []


def _filled_in(rendered: Any, live: Any, path: str) -> Iterator[str]:
    """Yield what differs from the rendered value, or is not rendered."""
    if path.endswith("/postgresql/parameters"):
        live = {name: live.get(name) for name in rendered}
    if path.endswith("/monitoring"):
        live = {name: value for name, value in live.items() if name != "enablePodMonitor"}
    if isinstance(rendered, dict) and isinstance(live, dict):
        for name in rendered.keys() | live.keys():
            yield from _filled_in(rendered.get(name), live.get(name), f"{path}/{name}")
    elif isinstance(rendered, list) and isinstance(live, list) and len(rendered) == len(live):
        for number, (one, other) in enumerate(zip(rendered, live, strict=True)):
            yield from _filled_in(one, other, f"{path}/{number}")
    elif rendered != live:
        yield f"{path}: {rendered!r} became {live!r}"


_LOG_IN = """
import asyncio, json, os, sys, asyncpg

async def main():
    role, password, host, mode = sys.argv[1:]
    url = f"postgresql://{role}:{os.environ[password]}@{host}:5432/microfin?{mode}"
    try:
        connection = await asyncpg.connect(url, statement_cache_size=0, timeout=5)
    except Exception as error:
        return {"error": repr(error)}
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "tcp_keepalives_idle")
    async with connection.transaction():
        printed = {it: await connection.fetchval(f"SHOW {it}") for it in names}
        return {"user": await connection.fetchval("SELECT current_user"), **printed}

print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.parametrize("role", list(ROLES))
async def test_each_role_logs_in_through_the_pooler(namespace: str, role: str) -> None:
    password = role.removeprefix("microfin_").upper()
    for host in ("microfin-pooler-0", f"microfin-pooler-0.{namespace}.svc"):
        printed = data_client.run(namespace, _LOG_IN, role, password, host, data_client.VERIFIED)
        assert printed["user"] == role, printed
        wanted = ROLES[role]
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            if name in wanted:
                assert printed[name] in (wanted[name], wanted[name].replace("60s", "1min"))


async def test_who_is_not_let_in(namespace: str) -> None:
    role = ("microfin_worker", "WORKER")
    address = get("service/microfin-pooler-0", namespace)["spec"]["clusterIP"]
    printed = data_client.run(namespace, _LOG_IN, *role, address, data_client.VERIFIED)
    assert "certificate" in printed["error"].lower(), "its address is not its name"
    for host in ("microfin-pooler-0", "microfin-postgres-0-rw"):
        printed = data_client.run(namespace, _LOG_IN, *role, host, "sslmode=disable")
        assert "error" in printed, f"{host} speaks in the clear"
    printed = data_client.run(
        namespace, _LOG_IN, "microfin_worker", "API", "microfin-pooler-0", data_client.VERIFIED
    )
    assert "assword" in printed["error"] or "auth" in printed["error"].lower()


_MONEY = """
import asyncio, json, os, sys, time, asyncpg
from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import operation_id
from microfin.kafka.producer import CommandProducer
from microfin.process.settings import CommonSettings
from microfin.ledger.wire import Command

USER, ATTEMPT = "a" * 32, sys.argv[1]

async def outcome(connection, operation):
    for _ in range(100):
        async with connection.transaction():
            row = await connection.fetchrow(
                "SELECT status, balance FROM outcomes WHERE operation_id = $1", operation)
        if row is not None:
            return list(row)
        await asyncio.sleep(0.2)
    return None

async def main():
    settings = CommonSettings()
    producer = CommandProducer(settings, "test")
    await producer.start()
    auditor = settings.databases.replace("microfin_worker", "microfin_auditor").replace(
        os.environ["WORKER"], os.environ["AUDITOR"])
    connection = await asyncpg.connect(auditor, statement_cache_size=0)
    deadline = int(time.time() * 1000) + 60_000
    opening = operation_id(USER, f"open {ATTEMPT}", "open", "")
    number = derive_account_number(opening, 0)
    printed = []
    for kind, operation, more in (
        ("open", opening, {"currency": "EUR"}),
        ("deposit", operation_id(USER, "deposit", "deposit", number), {"amount": "12.5"}),
        ("withdraw", operation_id(USER, "withdraw", "withdraw", number), {"amount": "2"}),
    ):
        command = Command(kind=kind, leg="request", operation=operation, account=number, user=USER,
                          generation=1, deadline=deadline, **more)
        await producer.send(0, command)
        printed.append(await outcome(connection, operation))
    await producer.stop()
    print(json.dumps({"number": number, "outcomes": printed}))

asyncio.run(main())
"""


async def test_a_worker_moves_money_through_the_pooler(namespace: str) -> None:
    """Without prepared statements, and it fills the cache as its own Redis user."""
    topic = kubectl("-n", namespace, "exec", data_client.POD, "--", "printenv", "MICROFIN_TOPIC")
    data_client.microfin(namespace, "topic", "grow", "--partitions", "1", "--replicas", "1")
    worker = data_client.pod(
        namespace, "worker-0", ["python", "-m", "microfin_worker"], topic.strip()
    )
    kubernetes_cluster.apply(worker)
    attempts = count()

    def cached() -> bool:
        """Until the NetworkPolicies know the worker's pod, Redis does not answer it."""
        printed = data_client.run(namespace, _MONEY, str(next(attempts)))
        settled = [["settled", 0], ["settled", 1250], ["settled", 1050]]
        assert printed["outcomes"] == settled, kubectl("-n", namespace, "logs", "worker-0")
        return '"balance":1050' in admin(namespace, f"GET account:{printed['number']}")

    await until("the worker to fill the cache", cached, 60)
    assert admin(namespace, "ACL LOG") in ("", "[]"), "a user was refused what it needs"
    data_client.microfin(namespace, "audit")


# The pod has the worker's image, without the API: the module of the API comes with the script.
_ALLOWANCE = (ROOT / "services/api/src/microfin_api/people/allowance.py").read_text("utf-8")
_REDIS_SCRIPT = """
import asyncio, json, os
from microfin.redis.account_cache import AccountCache, CachedAccount, account_seal
from microfin.redis.guarded import GuardedRedis
from microfin.process.settings import CommonSettings

def redis(user):
    password = os.environ["REDIS_" + user.upper()]
    url = f"redis://microfin_{user}:{password}@microfin-redis:6379"
    return GuardedRedis(CommonSettings(redis=url, redis_timeout=2))

async def hear(client):
    async for payload in client.subscribe("replies:one"):
        return payload.decode()

async def main():
    api, worker = redis("api"), redis("worker")
    await api.start()
    await worker.start()
    printed = {}
    await api.set("session:x", b"1", seconds=60)
    printed["session"] = (await api.get("session:x")).decode()
    await api.delete("session:x")
    printed["first"] = (await api.remember_first("key:u:k", b"deposit", seconds=60)).decode()
    printed["again"] = (await api.remember_first("key:u:k", b"withdraw", seconds=60)).decode()
    printed["rate"] = (await Allowances(api).acquire("rate:in:email:x", 9, seconds=60)).result
    for client, number in ((worker, "100000000001"), (api, "100000000002")):
        cache = AccountCache(client, account_seal("a secret of API and workers"))
        account = CachedAccount(number, "o", "EUR", 5, "open", 1, 1)
        await cache.put([account])
        held = await client.get(f"account:{number}")  # as the release before reads it
        printed[number] = '"balance":5' in held.decode()
    hearing = asyncio.create_task(hear(api))
    for _ in range(50):
        await asyncio.sleep(0.1)
        await worker.publish("replies:one", b"answer")
        if hearing.done():
            break
    printed["heard"] = await asyncio.wait_for(hearing, 5)
    print(json.dumps(printed))

asyncio.run(main())
"""
_REDIS_USERS = _ALLOWANCE + _REDIS_SCRIPT


async def test_redis_users_can_do_what_they_need(namespace: str) -> None:
    admin(namespace, "ACL LOG RESET")
    printed = data_client.run(namespace, _REDIS_USERS)
    assert printed == {
        "session": "1",
        "first": "deposit",
        "again": "deposit",
        "rate": 0,
        "100000000001": True,
        "100000000002": True,
        "heard": "answer",
    }
    assert admin(namespace, "ACL LOG") in ("", "[]"), "a client was refused what it asks for itself"


@pytest.mark.parametrize(
    ("user", "commands"),
    [
        (
            "worker",
            [
                "GET session:x",
                "SET session:x 1",
                "GET key:u:k",
                "INCR rate:x",
                "DEL account:1",
                "SPUBLISH other:x 1",
                "SSUBSCRIBE replies:one",
                "FLUSHALL",
                "KEYS *",
                "CONFIG GET *",
                "CLUSTER RESET",
                "ACL LIST",
                "EVAL return(redis.call('get',KEYS[1])) 1 session:x",
            ],
        ),
        (
            "api",
            [
                "GET other:x",
                "SPUBLISH other:x 1",
                "FLUSHDB",
                "SCAN 0",
                "CONFIG SET maxmemory 0",
                "CLUSTER FORGET x",
                "SHUTDOWN",
            ],
        ),
        ("default", ["PING", "GET account:1"]),
    ],
)
async def test_redis_users_are_refused_everything_else(
    namespace: str, user: str, commands: list[str]
) -> None:
    for command in commands:
        printed = redis_cli(namespace, user, command)
        assert re.search("NOPERM|NOAUTH|WRONGPASS", printed), f"{command}: {printed}"


def redis_cli(namespace: str, user: str, command: str, pod: int = 0, *, follow: bool = True) -> str:
    """Run a command on a node, or where it sends us, as one of its users."""
    words = ["redis-cli", "--no-auth-warning", *(["-c"] if follow else [])]
    if user != "default":
        words += ["--user", f"microfin_{user}", "--pass", password(namespace, user)]
    container = ("exec", f"microfin-redis-{pod}", "-c", "redis", "--")
    clean = ("env", "-u", "REDISCLI_AUTH")
    return kubectl("-n", namespace, *container, *clean, *words, *command.split(), check=False)


def password(namespace: str, user: str) -> str:
    held = get("secret/microfin-redis", namespace)["data"][f"{user}-password"]
    return base64.b64decode(held).decode()


def admin(namespace: str, command: str, pod: int = 0) -> str:
    return redis_cli(namespace, "admin", command, pod).strip()


def nodes(namespace: str) -> dict[str, tuple[str, str]]:
    """Return each node's role and address, as node 0 sees them, the failing ones excepted."""
    found = {}
    for line in admin(namespace, "CLUSTER NODES").splitlines():
        _, place, flags, *_ = line.split()
        address, _, host = place.partition(",")
        if "fail" not in flags and "handshake" not in flags:
            role = "replica" if "slave" in flags else "master"
            found[host.partition(".")[0]] = (role, address)
    return found


def whole(namespace: str, count: int) -> bool:
    """Whether every node sees all slots served, by that many pods, all of them ready."""
    pods = redis_pods(namespace)
    if len(pods) != count or not all(map(is_ready, pods)):
        return False
    for pod in range(count):
        printed = admin(namespace, "CLUSTER INFO", pod)
        if "cluster_state:ok" not in printed or "cluster_slots_ok:16384" not in printed:
            return False
        if f"cluster_known_nodes:{count}" not in printed:
            return False
    return True


def redis_pods(namespace: str) -> list[dict[str, Any]]:
    listed = json.loads(kubectl("-n", namespace, "get", "pods", "-l", REDIS, "-o", "json"))
    return list(listed["items"])


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)


async def test_all_redis_pods_deleted_at_once(namespace: str) -> None:
    before = nodes(namespace)
    identities = {pod["metadata"]["uid"] for pod in redis_pods(namespace)}
    began = time.monotonic()
    kubectl("-n", namespace, "delete", "pods", "-l", REDIS)

    def back() -> bool:
        now = {pod["metadata"]["uid"] for pod in redis_pods(namespace)}
        # A node that is slow for a moment counts as failing for another, though all is served.
        return not now & identities and whole(namespace, 3) and len(nodes(namespace)) == len(before)

    await until("the cluster", back)
    figure(f"all Redis pods deleted at once: whole again after {time.monotonic() - began:.1f} s")
    after = nodes(namespace)
    assert {name: role for name, (role, _) in after.items()} == dict.fromkeys(before, "master")
    addresses = {address for _, address in after.values()}
    assert addresses != {address for _, address in before.values()}
    assert data_client.run(namespace, _REDIS_USERS)["heard"] == "answer"


async def test_one_redis_master_deleted(namespace: str) -> None:
    (before,) = (it for it in redis_pods(namespace) if it["metadata"]["name"] == "microfin-redis-1")
    began = time.monotonic()
    kubectl("-n", namespace, "delete", "pod", "microfin-redis-1")

    def back() -> bool:
        now = {pod["metadata"]["uid"] for pod in redis_pods(namespace)}
        return before["metadata"]["uid"] not in now and whole(namespace, 3)

    await until("the cluster", back)
    figure(
        f"one Redis master without a replica: whole again after {time.monotonic() - began:.1f} s"
    )


async def test_an_upgrade_without_a_change_changes_nothing(namespace: str) -> None:
    before, pods = state(namespace), pods_of(namespace)
    deploy(namespace)
    assert state(namespace) == before
    assert pods_of(namespace) == pods


_KINDS: Final = (
    "secrets,configmaps,statefulsets,services,networkpolicies,poddisruptionbudgets,"
    "clusters.postgresql.cnpg.io,poolers.postgresql.cnpg.io"
)


def state(namespace: str) -> dict[str, Any]:
    """Return what each of the release's objects wants and holds."""
    listed = json.loads(kubectl("-n", namespace, "get", _KINDS, "-o", "json"))["items"]
    ours = [
        it
        for it in listed
        if it["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == RELEASE
    ]
    assert len(ours) > 12
    return {
        f"{it['kind']}/{it['metadata']['name']}": (
            it["metadata"].get("generation"),
            it.get("spec"),
            it.get("data"),
        )
        for it in ours
    }


def pods_of(namespace: str) -> set[str]:
    listed = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
    return {it["metadata"]["uid"] for it in listed}


async def test_replicas_are_added_and_one_takes_over(namespace: str) -> None:
    deploy(namespace, "redis.replicas=1")
    began = time.monotonic()
    rollout = ("rollout", "status", "statefulset/microfin-redis", "--timeout=180s")
    kubectl("-n", namespace, *rollout)
    await until("six nodes", lambda: whole(namespace, 6))

    def paired() -> bool:
        roles = [role for role, _ in nodes(namespace).values()]
        return sorted(roles) == ["master"] * 3 + ["replica"] * 3

    await until("three pairs", paired)
    figure(f"Redis from 3 to 6 nodes, one after the other, in {time.monotonic() - began:.1f} s")
    admin(namespace, "SET account:kept here")
    holder = next(
        f"microfin-redis-{pod}"
        for pod in range(6)
        if redis_cli(namespace, "admin", "GET account:kept", pod, follow=False).strip() == "here"
    )
    (before,) = (it for it in redis_pods(namespace) if it["metadata"]["name"] == holder)
    kubectl("-n", namespace, "delete", "pod", holder)

    def taken_over() -> bool:
        now = {pod["metadata"]["uid"] for pod in redis_pods(namespace)}
        return before["metadata"]["uid"] not in now and whole(namespace, 6)

    took = await until("the cluster", taken_over)
    figure(f"a Redis master with a replica deleted: whole again after {took:.1f} s")
    assert admin(namespace, "GET account:kept") == "here"
    assert nodes(namespace)[holder][0] == "replica"


@pytest.mark.timeout(900)
async def test_redis_speaks_tls(namespace: str) -> None:
    """Switched on as the README says: all pods at once, because the two kinds do not mix."""
    authority = trustme.CA()
    service = f"microfin-redis.{namespace}.svc"
    made = authority.issue_cert(service, f"*.{service}")
    files = {
        "tls.crt": made.cert_chain_pems[0].bytes(),
        "tls.key": made.private_key_pem.bytes(),
        "ca.crt": authority.cert_pem.bytes(),
    }
    kubernetes_cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "redis-tls", "namespace": namespace},
            "data": {name: base64.b64encode(it).decode() for name, it in files.items()},
        }
    )
    switch(namespace, "redis.tls.enabled=true", "redis.tls.secret=redis-tls")
    host = f"microfin-redis-1.{service}"
    within = ("-n", namespace, "exec", "microfin-redis-0", "-c", "redis", "--", "redis-cli")
    login = ("--user", "microfin_admin", "--no-auth-warning")
    trusting = ("--tls", "--cacert", "/etc/redis-tls/ca.crt")

    def by_name() -> bool:  # for some seconds the name can still be the deleted pod's address
        ask = (*within, *trusting, "-h", host, *login, "CLUSTER", "INFO")
        return "cluster_state:ok" in kubectl(*ask, check=False)

    await until("Redis by TLS and its name", by_name)
    printed = kubectl(*within, "-h", host, *login, "PING", check=False)
    assert "PONG" not in printed, "it speaks plaintext, too"
    switch(namespace)
    await until("the cluster", lambda: whole(namespace, 3))


def switch(namespace: str, *values: str) -> None:
    """Upgrade the chart, delete all of Redis' pods, and wait until they are ready again.

    A pod can come back by the template of before, and those do not mix: then all are deleted again.
    """
    deploy(namespace, *values)
    rollout = ("rollout", "status", "statefulset/microfin-redis", "--timeout=120s")
    for _ in range(3):
        kubectl("-n", namespace, "delete", "pods", "-l", REDIS)
        if "complete" in kubectl("-n", namespace, *rollout, check=False):
            return
    raise AssertionError(kubectl("-n", namespace, "describe", "pods", "-l", REDIS))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("postgres.enabled=false", "postgres.enabled is false, but there are microfin-postgres-0"),
        ("postgres.storage.size=1Gi", "the volumes of microfin-postgres-0 have 5Gi"),
    ],
)
async def test_what_would_lose_data_is_refused(namespace: str, value: str, said: str) -> None:
    """As the chart sees the namespace: `helm template` sees none."""
    before = state(namespace)
    assert said in refusal(namespace, value)
    assert state(namespace) == before


async def test_uninstalled_and_installed_again_it_has_everything(namespace: str) -> None:
    def sql(statement: str) -> str:
        psql = ("exec", "microfin-postgres-0-1", "-c", "postgres", "--", "psql", "-d", "microfin")
        return kubectl("-n", namespace, *psql, "-Atc", statement).strip()

    deploy(namespace, "keep=true")
    sql("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('here')")
    uid = get("cluster.postgresql.cnpg.io/microfin-postgres-0", namespace)["metadata"]["uid"]
    helm("uninstall", RELEASE, "--namespace", namespace)
    kept = get("cluster.postgresql.cnpg.io/microfin-postgres-0", namespace)["metadata"]
    assert (kept["uid"], "deletionTimestamp" in kept) == (uid, False)
    deploy(namespace, "keep=true")
    for line in waiting(namespace):
        kubectl(*line.split()[1:])
    assert sql("SELECT word FROM kept") == "here"
    printed = data_client.run(
        namespace, _LOG_IN, "microfin_worker", "WORKER", "microfin-pooler-0", data_client.VERIFIED
    )
    assert printed["user"] == "microfin_worker", printed
    await until("Redis", lambda: whole(namespace, 3))
    deploy(namespace)


async def test_uninstalled_it_leaves_passwords_and_a_namespace_that_goes(namespace: str) -> None:
    before = get("secret/microfin-postgres-worker", namespace)["data"]
    helm("uninstall", RELEASE, "--namespace", namespace)
    assert get("secret/microfin-postgres-worker", namespace)["data"] == before

    def gone() -> bool:
        left = kubectl("-n", namespace, "get", "pods,pvc", "-o", "name").split()
        return not [it for it in left if "redis" in it or "postgres" in it]

    await until("pods and volumes", gone)
    began = time.monotonic()
    kubectl("delete", "namespace", namespace, "--timeout=60s")
    figure(f"the namespace went in {time.monotonic() - began:.1f} s")
