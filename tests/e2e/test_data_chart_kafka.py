"""kafka.yaml, kafka-node-pools.yaml and kafka-users.yaml of the chart microfin-data."""

from typing import Any

import pytest

from e2e.data_chart import CHART, DEV, PRODUCTION, named, names, render
from e2e.rendered_chart import Item, objects, of_kind, template
from microfin_deploy.platform import ExistingKafka, Platform
from microfin_deploy.releases import Wanted, application_values, data_values
from microfin_local.kafka import _SETTINGS, _SEVERAL_BROKERS


def kafka(*values: str, **more: Any) -> Item:
    return dict(named(render(*values, **more), "Kafka", "microfin")["spec"])


def pool(name: str, *values: str, **more: Any) -> Item:
    return named(render(*values, **more), "KafkaNodePool", name)


def test_it_can_be_switched_off() -> None:
    items = render("kafka.enabled=false", "metrics.podMonitors.enabled=true")
    assert not [it for it in items if "strimzi" in it["apiVersion"]]
    assert not [name for name in names(items, "NetworkPolicy") if "kafka" in name]
    assert not [name for name in names(items, "PodMonitor") if "kafka" in name]


def test_only_over_tls_with_a_certificate_and_only_what_is_allowed() -> None:
    (listener,) = kafka()["kafka"]["listeners"]
    assert (listener["port"], listener["tls"]) == (9093, True)
    assert listener["authentication"] == {"type": "tls"}
    assert kafka()["kafka"]["authorization"] == {"type": "simple"}


def test_strimzis_own_policy_lets_in_nobody_else() -> None:
    (listener,) = kafka()["kafka"]["listeners"]
    policy = named(render(), "NetworkPolicy", "microfin-kafka")
    ours = next(it for it in policy["spec"]["ingress"] if it["ports"] == [{"port": 9093}])
    assert listener["networkPolicyPeers"] == ours["from"]
    (open_to_all,) = kafka("networkPolicy.enabled=false")["kafka"]["listeners"]
    assert "networkPolicyPeers" not in open_to_all


@pytest.mark.parametrize(("brokers", "copies", "in_sync"), [(1, 1, 1), (3, 3, 2), (5, 3, 2)])
def test_how_many_copies_an_acknowledgement_needs(brokers: int, copies: int, in_sync: int) -> None:
    config = kafka(f"kafka.brokers.replicas={brokers}")["kafka"]["config"]
    assert {config[name] for name in config if "replication.factor" in name} == {copies}
    assert {
        config[name] for name in config if name.endswith(("min.isr", "min.insync.replicas"))
    } == {in_sync}
    assert sum("replication.factor" in name for name in config) == 4


def test_records_stay_and_nobody_leads_who_lacks_some() -> None:
    config = kafka()["kafka"]["config"]
    assert config["unclean.leader.election.enable"] is False
    assert config["auto.create.topics.enable"] is False
    assert (config["log.retention.ms"], config["log.retention.bytes"]) == (-1, -1)


def test_what_is_gone_is_found_out_as_on_one_machine() -> None:
    """Strimzi 1.2 ignores what begins with broker. and controller., but for these (ADR 17)."""
    config = kafka()["kafka"]["config"]
    settings = _SETTINGS.replace("{liveness}", _SEVERAL_BROKERS)
    lines = (line.partition("=") for line in settings.splitlines())
    one_machine = {name: text for name, _, text in lines}
    for name in (
        *("request.timeout.ms", "replica.lag.time.max.ms", "controller.socket.timeout.ms"),
        *("broker.session.timeout.ms", "broker.heartbeat.interval.ms"),
        *("controller.quorum.fetch.timeout.ms", "controller.quorum.election.timeout.ms"),
    ):
        assert str(config[name]) == one_machine[name], name


def test_more_settings_but_not_those_that_safety_needs() -> None:
    more = "kafka.config.num\\.network\\.threads=5"
    assert kafka(more)["kafka"]["config"]["num.network.threads"] == 5
    for name in ("request.timeout.ms", "broker.session.timeout.ms"):
        escaped = name.replace(".", "\\.")
        assert kafka(f"kafka.config.{escaped}=6000")["kafka"]["config"][name] == 6000


@pytest.mark.parametrize(
    "setting",
    [
        "unclean.leader.election.enable",
        "min.insync.replicas",
        "auto.create.topics.enable",
        "log.retention.hours",
        "offsets.topic.replication.factor",
        "broker.id",
        "controller.listener.names",
        "ssl.keystore.location",
    ],
)
def test_settings_that_are_refused(setting: str) -> None:
    escaped = setting.replace(".", "\\.")
    with pytest.raises(ValueError, match=rf"kafka\.config must not set {setting}: .* Leave it out"):
        render(f"kafka.config.{escaped}=1")


def test_controllers_of_their_own_by_default_and_in_production() -> None:
    for files in ((), (PRODUCTION,)):
        items = render(files=files)
        assert names(items, "KafkaNodePool") == ["broker", "controller"]
        assert named(items, "KafkaNodePool", "broker")["spec"]["roles"] == ["broker"]
        assert named(items, "KafkaNodePool", "controller")["spec"]["roles"] == ["controller"]
        assert {it["spec"]["replicas"] for it in of_kind(items, "KafkaNodePool")} == {3}


def test_one_for_both_in_development() -> None:
    items = render(files=(DEV,))
    (one,) = of_kind(items, "KafkaNodePool")
    assert one["spec"]["replicas"] == 1
    assert one["spec"]["roles"] == ["controller", "broker"]


def test_volumes_stay_unless_it_is_development() -> None:
    (volume,) = pool("broker")["spec"]["storage"]["volumes"]
    assert volume["deleteClaim"] is False
    assert "class" not in volume
    (volume,) = pool("broker", "kafka.brokers.storage.class=fast")["spec"]["storage"]["volumes"]
    assert volume["class"] == "fast"
    (volume,) = pool("broker", files=(DEV,))["spec"]["storage"]["volumes"]
    assert volume["deleteClaim"] is True


def test_each_pool_belongs_to_the_kafka_and_is_spread_over_nodes() -> None:
    for name in ("broker", "controller"):
        item = pool(name, "spread=required")
        assert item["metadata"]["labels"]["strimzi.io/cluster"] == "microfin"
        nodes, zones = item["spec"]["template"]["pod"]["topologySpreadConstraints"]
        assert nodes["whenUnsatisfiable"] == "DoNotSchedule"
        assert nodes["labelSelector"]["matchLabels"] == {
            "strimzi.io/cluster": "microfin",
            "strimzi.io/pool-name": name,
        }
        assert zones["topologyKey"] == "topology.kubernetes.io/zone"
        preferred, _ = pool(name)["spec"]["template"]["pod"]["topologySpreadConstraints"]
        assert preferred["whenUnsatisfiable"] == "ScheduleAnyway"


def test_racks_only_where_nodes_have_the_label() -> None:
    assert "rack" not in kafka()["kafka"]
    assert "initContainer" not in pool("broker")["spec"]["template"]
    assert kafka(files=(PRODUCTION,))["kafka"]["rack"] == {
        "topologyKey": "topology.kubernetes.io/zone"
    }
    assert "initContainer" in pool("broker", files=(PRODUCTION,))["spec"]["template"]


RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def test_pods_are_restricted_for_any_setting_of_strimzi() -> None:
    templates = [pool(name)["spec"]["template"] for name in ("broker", "controller")]
    templates.append(kafka()["entityOperator"]["template"])
    containers = [
        template[name]["securityContext"]
        for template in templates
        for name in template
        if name.endswith("Container")
    ]
    assert all(it["pod"]["securityContext"] == RESTRICTED_POD for it in templates)
    assert containers == [RESTRICTED_CONTAINER] * 4


def rights(user: str) -> dict[tuple[str, str], list[str]]:
    spec = named(render(), "KafkaUser", user)["spec"]
    assert spec["authentication"] == {"type": "tls"}
    assert spec["authorization"]["type"] == "simple"
    return {
        (acl["resource"]["type"], acl["resource"]["name"]): acl["operations"]
        for acl in spec["authorization"]["acls"]
        if acl["resource"]["patternType"] == "literal"
    }


def test_each_user_has_the_rights_that_it_uses_and_no_other() -> None:
    topic = ("topic", "microfin.commands")
    assert rights("microfin-api") == {topic: ["Describe", "Write"]}
    assert rights("microfin-worker") == {
        topic: ["Describe", "Read", "Write"],
        ("group", "microfin-workers"): ["Read"],
    }
    assert rights("microfin-audit") == {topic: ["Describe", "Read"]}
    assert rights("microfin-administrator") == {topic: ["Describe", "Read", "Write"]}
    assert rights("microfin-trim") == {topic: ["Delete", "Describe", "Read"]}
    assert names(render(), "KafkaUser") == [
        "microfin-administrator",
        "microfin-api",
        "microfin-audit",
        "microfin-trim",
        "microfin-worker",
    ]


def test_only_the_job_that_trims_may_delete_records() -> None:
    """Kafka's right to delete records is also the right to delete the topic."""
    chart = CHART.parent / "microfin"
    items = objects(template("microfin", chart, "bank"))
    mounting = [it["metadata"]["name"] for it in items if "microfin-trim'" in str(it.get("spec"))]
    assert mounting == ["microfin-trim"]


def test_in_production_nobody_deletes_the_topic() -> None:
    assert kafka(files=(PRODUCTION,))["kafka"]["config"]["delete.topic.enable"] is False
    assert "delete.topic.enable" not in kafka(files=(DEV,))["kafka"]["config"]


def test_what_holds_money_stays_when_the_release_goes() -> None:
    kept = [
        (it["kind"], it["metadata"]["name"])
        for it in render("postgres.shards=2")
        if (it["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
        and it["kind"] != "Secret"
    ]
    assert sorted(kept) == [
        ("Cluster", "microfin-postgres-0"),
        ("Cluster", "microfin-postgres-1"),
        ("Kafka", "microfin"),
        ("KafkaNodePool", "broker"),
        ("KafkaNodePool", "controller"),
    ]


def test_the_workers_group_is_the_one_that_they_use() -> None:
    from microfin_worker.kafka_log import LAG_GROUP  # noqa: PLC0415 - next to its use

    assert ("group", LAG_GROUP) in rights("microfin-worker")


def test_the_topic_is_the_operators() -> None:
    assert of_kind(render(), "KafkaTopic") == []
    user = named(render("kafka.topic=ledger"), "KafkaUser", "microfin-api")
    assert user["spec"]["authorization"]["acls"][0]["resource"]["name"] == "ledger"


def test_metrics_come_from_strimzis_reporter() -> None:
    metrics = kafka()["kafka"]["metricsConfig"]
    assert metrics["type"] == "strimziMetricsReporter"
    assert "kafka_server_.*" in metrics["values"]["allowList"]


def test_a_kafka_of_another_namespace_has_the_users_that_deploy_copies() -> None:
    kafka = Platform(ExistingKafka("kafka", "main"), ingress_class="")
    wanted = Wanted(
        "bank", "bank-system", "dev", "dev-1", shards=1, host="bank.test", topic="b.commands"
    )
    values = data_values(wanted, kafka)["kafka"]
    existing = [f"kafka.existing.{name}={it}" for name, it in values["existing"].items()]
    items = render("kafka.enabled=false", *existing)
    copies = application_values(wanted, kafka)["kafkaSecrets"]["copies"]
    copies.pop("microfin-cluster-ca-cert")
    assert names(items, "KafkaUser") == sorted(copies.values())
    for user in of_kind(items, "KafkaUser"):
        assert user["metadata"]["namespace"] == "kafka"
        assert user["metadata"]["labels"]["strimzi.io/cluster"] == "main"
