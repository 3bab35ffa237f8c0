"""The pods that the operator makes."""

from typing import Any

from microfin_operator.pod_template import administration_template, merge, worker_template
from support.operator import states


def worker(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(
        it for it in template["spec"]["containers"] if it["name"] == "worker"
    )
    return found


def test_a_worker_meets_the_restricted_pod_security_standard() -> None:
    template = worker_template(states.cluster())
    pod, container = template["spec"], worker(template)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["automountServiceAccountToken"] is False


def test_the_users_template_is_merged_by_name() -> None:
    theirs = {
        "metadata": {"annotations": {"a": "b"}, "labels": {"team": "money"}},
        "spec": {
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "volumes": [{"name": "ca", "secret": {"secretName": "ca"}}],
            "containers": [
                {
                    "name": "worker",
                    "env": [{"name": "MICROFIN_BATCH_LIMIT", "value": "100"}],
                    "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
                },
                {"name": "sidecar", "image": "x:1"},
            ],
        },
    }
    template = worker_template(states.cluster(worker={"podTemplate": theirs}))
    assert template["metadata"]["labels"]["team"] == "money"
    assert template["metadata"]["labels"]["microfin.io/cluster"] == "bank"
    assert [it["name"] for it in template["spec"]["volumes"]] == ["temporary", "ca"]
    assert [it["name"] for it in template["spec"]["containers"]] == ["worker", "sidecar"]
    assert [it["mountPath"] for it in worker(template)["volumeMounts"]] == ["/tmp", "/ca"]  # noqa: S108
    names = [it["name"] for it in worker(template)["env"]]
    assert names[0] == "MICROFIN_BATCH_LIMIT"
    assert "MICROFIN_TOPIC" in names


def test_what_the_operator_relies_on_cannot_be_replaced() -> None:
    theirs = {
        "metadata": {"labels": {"microfin.io/cluster": "other"}},
        "spec": {
            "containers": [{"name": "worker", "env": [{"name": "MICROFIN_TOPIC", "value": "x"}]}]
        },
    }
    template = worker_template(states.cluster(worker={"podTemplate": theirs}))
    assert template["metadata"]["labels"]["microfin.io/cluster"] == "bank"
    topics = [it for it in worker(template)["env"] if it["name"] == "MICROFIN_TOPIC"]
    assert topics == [{"name": "MICROFIN_TOPIC", "value": "microfin.commands"}]


def test_a_job_has_the_workers_settings_and_nothing_that_runs_on() -> None:
    theirs = {
        "spec": {
            "containers": [
                {"name": "worker", "env": [{"name": "MICROFIN_KAFKA_CA_FILE", "value": "/ca"}]},
                {"name": "sidecar", "image": "x:1"},
            ]
        }
    }
    template = administration_template(
        states.cluster(worker={"podTemplate": theirs}), ["microfin", "routing", "grow"]
    )
    (container,) = template["spec"]["containers"]
    assert {"name": "MICROFIN_KAFKA_CA_FILE", "value": "/ca"} in container["env"]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "administration"


def test_a_job_runs_where_workers_run_unless_it_has_its_own_place() -> None:
    theirs = {
        "nodeSelector": {"pool": "workers"},
        "tolerations": [{"key": "workers"}],
        "priorityClassName": "workers",
    }
    spec = {"podTemplate": {"spec": theirs}, "resources": {"limits": {"memory": "512Mi"}}}
    of = states.cluster(worker=spec)
    template = administration_template(of, ["microfin"])
    assert theirs.items() <= template["spec"].items()
    assert worker(template)["resources"] == spec["resources"]
    own = {
        "nodeSelector": {"pool": "jobs"},
        "tolerations": [{"key": "jobs"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "jobs",
    }
    resources = {"requests": {"cpu": "50m"}, "limits": {"cpu": "1", "memory": "96Mi"}}
    of = states.cluster(worker=spec, administration={**own, "resources": resources})
    template = administration_template(of, ["microfin"])
    assert own.items() <= template["spec"].items()
    assert worker(template)["resources"] == resources
    workers = worker_template(of)
    assert theirs.items() <= workers["spec"].items()
    assert worker(workers)["resources"] == spec["resources"]


def test_a_worker_listens_on_all_its_addresses_of_both_families() -> None:
    variables = {it["name"]: it["value"] for it in worker(worker_template(states.cluster()))["env"]}
    assert variables["MICROFIN_WORKER_HOST"] == ""


def test_null_removes_a_field() -> None:
    assert merge({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": None}}) == {"a": 1, "b": {"d": 3}}


def test_other_lists_are_replaced() -> None:
    assert merge({"tolerations": [1]}, {"tolerations": [2]}) == {"tolerations": [2]}
