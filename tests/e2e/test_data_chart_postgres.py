"""The templates postgres-*.yaml of the chart microfin-data."""

from typing import Any

import pytest

from e2e.data_chart import DEV, PRODUCTION, named, names, render
from e2e.rendered_chart import Item, of_kind
from microfin_local.pgbouncer import _SETTINGS as ONE_MACHINE
from microfin_tools.migrations.run import ROLES

BACKUP = ("postgres.backup.enabled=true", "postgres.backup.objectStore=store")


def cluster(*values: str, **more: Any) -> Item:
    return dict(named(render(*values, **more), "Cluster", "microfin-postgres-0")["spec"])


def pooler(*values: str, **more: Any) -> Item:
    return dict(named(render(*values, **more), "Pooler", "microfin-pooler-0")["spec"])


def test_it_can_be_switched_off() -> None:
    items = render("postgres.enabled=false", "metrics.podMonitors.enabled=true", *BACKUP)
    assert not [it for it in items if it["apiVersion"].startswith("postgresql")]
    assert not [it for it in items if "postgres" in it["metadata"]["name"]]
    assert not [it for it in items if "pooler" in it["metadata"]["name"]]


def test_each_shard_has_a_cluster_and_a_pooler() -> None:
    items = render("postgres.shards=3")
    assert names(items, "Cluster") == [f"microfin-postgres-{shard}" for shard in range(3)]
    assert names(items, "Pooler") == [f"microfin-pooler-{shard}" for shard in range(3)]
    for shard in range(3):
        spec = named(items, "Pooler", f"microfin-pooler-{shard}")["spec"]
        assert spec["cluster"] == {"name": f"microfin-postgres-{shard}"}


@pytest.mark.parametrize("value", ["postgres.shards=0", "postgres.instances=0"])
def test_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="minimum"):
        render(value)


def test_a_commit_is_acknowledged_when_a_standby_has_it() -> None:
    assert cluster()["postgresql"]["synchronous"] == {
        "method": "any",
        "number": 1,
        "dataDurability": "required",
        "failoverQuorum": True,
    }
    assert cluster(files=(PRODUCTION,))["instances"] == 3
    assert "synchronous" not in cluster(files=(DEV,))["postgresql"]


@pytest.mark.parametrize("name", ["fsync", "synchronous_commit", "full_page_writes"])
def test_durability_is_not_to_be_set(name: str) -> None:
    with pytest.raises(ValueError, match=rf"postgres\.parameters must not set {name}: .* durable"):
        render(f"postgres.parameters.{name}=off")


def test_the_ledger_is_in_utf8_and_its_owner_makes_it() -> None:
    initdb = cluster()["bootstrap"]["initdb"]
    assert (initdb["database"], initdb["owner"]) == ("microfin", "microfin_owner")
    assert initdb["encoding"] == "UTF8"
    assert initdb["dataChecksums"] is True


def test_the_roles_are_those_of_the_migrations() -> None:
    """Made before the owner's migration, which gives them time limits and needs ADMIN for that."""
    spec = cluster()
    managed = {it["name"]: it for it in spec["managed"]["roles"]}
    assert set(managed) == set(ROLES)
    for role, item in managed.items():
        assert item["login"] is True
        assert item["passwordSecret"]["name"] == role.replace("microfin_", "microfin-postgres-")
        assert not item.keys() & {"superuser", "createdb", "createrole", "inRoles"}
    statements = spec["bootstrap"]["initdb"]["postInitSQL"]
    assert [f"CREATE ROLE {role} NOLOGIN" for role in ROLES] == statements[: len(ROLES)]
    assert statements[-1].startswith(f"GRANT {', '.join(ROLES)} TO microfin_owner WITH ADMIN TRUE")
    assert "INHERIT FALSE, SET FALSE" in statements[-1]


def test_its_certificate_holds_the_poolers_names() -> None:
    spec = named(render("postgres.shards=2"), "Cluster", "microfin-postgres-1")["spec"]
    assert spec["certificates"]["serverAltDNSNames"] == [
        "microfin-pooler-1",
        "microfin-pooler-1.bank",
        "microfin-pooler-1.bank.svc",
        "microfin-pooler-1.bank.svc.cluster.local",
    ]


def test_nothing_is_in_the_clear() -> None:
    assert cluster()["postgresql"]["pg_hba"] == ["hostnossl all all all reject"]
    assert pooler()["pgbouncer"]["parameters"]["client_tls_sslmode"] == "require"


@pytest.mark.parametrize(
    ("pods", "size", "connections"), [(1, 30, "120"), (2, 30, "210"), (3, 40, "390")]
)
def test_postgresql_accepts_the_connections_of_all_poolers(
    pods: int, size: int, connections: str
) -> None:
    values = (f"postgres.pooler.instances={pods}", f"postgres.pooler.poolSize={size}")
    assert cluster(*values)["postgresql"]["parameters"]["max_connections"] == connections
    parameters = pooler(*values)["pgbouncer"]["parameters"]
    assert parameters["default_pool_size"] == str(size)
    assert parameters["max_db_connections"] == str(3 * size)


def test_max_connections_of_ones_own() -> None:
    strings = ("postgres.parameters.max_connections=500", "postgres.parameters.jit=on")
    spec = cluster(strings=strings)
    assert spec["postgresql"]["parameters"]["max_connections"] == "500"
    assert spec["postgresql"]["parameters"]["jit"] == "on"
    assert spec["postgresql"]["parameters"]["shared_buffers"] == "512MB"


def test_the_pooler_is_as_on_one_machine() -> None:
    pgbouncer = pooler()["pgbouncer"]
    assert pgbouncer["poolMode"] == "transaction"
    lines = (line.partition(" = ") for line in ONE_MACHINE.splitlines() if " = " in line)
    one_machine = {name: text for name, _, text in lines}
    for name in (
        *("query_wait_timeout", "server_connect_timeout", "server_login_retry"),
        *("tcp_keepalive", "tcp_keepidle", "tcp_keepintvl", "tcp_keepcnt"),
    ):
        assert pgbouncer["parameters"][name] == one_machine[name], name
    assert int(pgbouncer["parameters"]["max_prepared_statements"]) > 0
    assert int(pgbouncer["parameters"]["server_lifetime"]) <= 60


def test_more_of_pgbouncer_but_not_another_mode() -> None:
    value = "postgres.pooler.parameters.min_pool_size=5"
    assert pooler(strings=(value,))["pgbouncer"]["parameters"]["min_pool_size"] == "5"
    with pytest.raises(ValueError, match="min_pool_size"):
        render(value)  # a number: PgBouncer's settings are strings
    with pytest.raises(ValueError, match=r"pooler\.parameters must not set pool_mode"):
        render("postgres.pooler.parameters.pool_mode=session")


def test_poolers_of_several_pods_are_disrupted_one_at_a_time() -> None:
    (budget,) = (it for it in of_kind(render(), "PodDisruptionBudget") if "pooler" in str(it))
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"]["matchLabels"] == {"cnpg.io/poolerName": "microfin-pooler-0"}
    assert not [
        it for it in of_kind(render(files=(DEV,)), "PodDisruptionBudget") if "pooler" in str(it)
    ]
    assert cluster()["enablePDB"] is True
    assert cluster(files=(DEV,))["enablePDB"] is False


def test_instances_are_kept_apart() -> None:
    assert cluster()["affinity"]["podAntiAffinityType"] == "preferred"
    assert cluster(files=(PRODUCTION,))["affinity"]["podAntiAffinityType"] == "required"
    nodes, _ = pooler(files=(PRODUCTION,))["template"]["spec"]["topologySpreadConstraints"]
    assert nodes["whenUnsatisfiable"] == "DoNotSchedule"


def test_a_pod_that_stops_does_not_wait_for_the_pooler() -> None:
    spec = cluster()
    assert spec["smartShutdownTimeout"] < 5 < spec["stopDelay"]
    assert spec["primaryUpdateMethod"] == "switchover"


def test_a_volume_for_the_log_only_where_it_is_wanted() -> None:
    assert "walStorage" not in cluster()
    assert cluster("postgres.walStorage.size=1Gi")["walStorage"]["size"] == "1Gi"
    assert cluster("postgres.storage.class=fast")["storage"]["storageClass"] == "fast"


def test_no_backups_unless_there_is_where_to() -> None:
    assert of_kind(render(), "ScheduledBackup") == []
    assert "plugins" not in cluster()
    with pytest.raises(ValueError, match=r"postgres\.backup\.objectStore"):
        render("postgres.backup.enabled=true")


def test_backups_are_the_plugins() -> None:
    items = render("postgres.shards=2", *BACKUP)
    (plugin,) = named(items, "Cluster", "microfin-postgres-1")["spec"]["plugins"]
    assert plugin["isWALArchiver"] is True
    assert plugin["parameters"] == {
        "barmanObjectName": "store",
        "serverName": "microfin-postgres-1",
    }
    assert names(items, "ScheduledBackup") == ["microfin-postgres-0", "microfin-postgres-1"]
    spec = named(items, "ScheduledBackup", "microfin-postgres-1")["spec"]
    assert spec["method"] == "plugin"
    assert spec["pluginConfiguration"]["name"] == plugin["name"]
    assert len(spec["schedule"].split()) == 6


def test_a_schedule_of_five_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="schedule"):
        render("postgres.backup.schedule=0 2 * * *", *BACKUP)


def test_pod_monitors_of_our_own() -> None:
    assert of_kind(render(), "PodMonitor") == []
    items = render("metrics.podMonitors.enabled=true", "metrics.podMonitors.labels.release=prom")
    assert names(items, "PodMonitor") == [
        "microfin-kafka",
        "microfin-pooler-0",
        "microfin-postgres-0",
    ]
    assert all(it["metadata"]["labels"]["release"] == "prom" for it in of_kind(items, "PodMonitor"))
    assert "enablePodMonitor" not in str(items)
