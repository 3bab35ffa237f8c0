"""Load on Kubernetes: what is put into the cluster, what is read out of it, and the report."""

import asyncio
import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from microfin_deploy.commands import DeployError
from microfin_loadtest import decision_counts
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.kubernetes import cluster
from microfin_loadtest.kubernetes import run as kubernetes_run
from microfin_loadtest.kubernetes.cluster import Namespace, ended
from microfin_loadtest.kubernetes.log import find_object, last_words
from microfin_loadtest.kubernetes.objects import (
    RUN_LABEL,
    Load,
    gate_job,
    job,
    k6_test_run,
    ledger_job,
    network_policy,
    place_of,
    scripts_map,
    users_secret,
)
from microfin_loadtest.kubernetes.run import IMAGE, KubernetesRequest, run_in_cluster
from microfin_loadtest.phases import Scrape
from microfin_loadtest.processes import Usage
from microfin_loadtest.report import unknown_usage, usage_figures
from microfin_loadtest.scripts import EXPECTED_REJECTIONS, FOLDER
from support.canned import summary

CRON_JOB: dict[str, Any] = {
    "spec": {
        "schedule": "*/10 * * * *",
        "jobTemplate": {
            "metadata": {"labels": {"app.kubernetes.io/component": "audit"}},
            "spec": {
                "backoffLimit": 3,
                "podFailurePolicy": {"rules": []},
                "template": {
                    "metadata": {"labels": {"app.kubernetes.io/component": "audit"}},
                    "spec": {
                        "imagePullSecrets": [{"name": "registry"}],
                        "containers": [
                            {
                                "name": "audit",
                                "image": "ghcr.io/microfin/worker:1",
                                "command": ["microfin", "audit", "--since"],
                                "env": [{"name": "MICROFIN_DATABASES", "value": "postgresql://…"}],
                            }
                        ],
                    },
                },
            },
        },
    }
}
AUDIT: dict[str, Any] = {
    "ok": True,
    "mode": "full",
    "at_rest": True,
    "shards": 1,
    "checked": {"accounts": 400, "entries": 2000, "outcomes": 2000, "operations": 2000},
    "in_transit": {"operations": 0, "in_outbox": 0, "quarantined": 0, "oldest_seconds": None},
    "violations": [],
    "violations_total": 0,
    "closed_with_balance": [],
    "closed_with_balance_total": 0,
    "quarantine": 0,
    "outbox": 0,
    "seconds": 0.4,
}


def a_load(script: str = "mix.js", **changes: Any) -> Load:
    fields = {
        "name": "load-mix-1a2b3c4d",
        "namespace": "bank",
        "script": FOLDER / script,
        "rate": 20,
        "duration": "15s",
        "seconds": 15,
        "api": "http://microfin-api.bank:80",
        "image": IMAGE,
        **changes,
    }
    return Load(**fields)


def pod_of(item: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = item["spec"]["template"]["spec"]
    return spec


def environment(entries: list[dict[str, str]]) -> dict[str, str]:
    return {it["name"]: it["value"] for it in entries}


# What is put into the cluster -------------------------------------------------------------------


@pytest.mark.parametrize("script", EXPECTED_REJECTIONS)
def test_each_script_and_what_it_imports_fit_into_a_config_map(script: str) -> None:
    data = scripts_map(a_load(script))["data"]
    assert data[script] == (FOLDER / script).read_text()
    imported = {it for text in data.values() for it in re.findall(r"'\./(.+?)'", text)}
    assert "lib.js" in imported
    assert set(data) == imported | {script}


def test_scripts_that_are_too_large_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mix.js").write_text("/" * (1024 * 1024 + 1))
    with pytest.raises(ValueError, match="1 MiB"):
        scripts_map(a_load(), tmp_path)


def test_the_job_mounts_what_belongs_to_its_run() -> None:
    load = a_load()
    pod = pod_of(job(load))
    volumes = {it["name"]: it for it in pod["volumes"]}
    assert volumes["scripts"]["configMap"]["name"] == scripts_map(load)["metadata"]["name"]
    assert volumes["users"]["secret"]["secretName"] == users_secret(load, "")["metadata"]["name"]
    (container,) = pod["containers"]
    mounts = {it["name"]: it["mountPath"] for it in container["volumeMounts"]}
    assert set(mounts) == set(volumes)
    assert container["command"][-1] == f"{mounts['scripts']}/mix.js"
    variables = environment(container["env"])
    assert variables["USERS"] == f"{mounts['users']}/users.json"
    assert (variables["API"], variables["RATE"], variables["DURATION"], variables["SUMMARY"]) == (
        load.api, "20", "15s", "stdout",
    )  # fmt: skip


def test_passwords_are_in_a_secret_and_nowhere_else() -> None:
    load = a_load()
    assert users_secret(load, '{"password": "x"}')["kind"] == "Secret"
    others = (scripts_map(load), job(load), k6_test_run(load), network_policy(load))
    assert '"password"' not in json.dumps([it for it in others if it["kind"] != "ConfigMap"])
    assert all("users.json" not in it.get("data", {}) for it in others)


def test_pods_meet_the_restricted_standard_and_are_admitted() -> None:
    runner = k6_test_run(a_load())["spec"]["runner"]
    (container,) = pod_of(job(a_load()))["containers"]
    for pod, own in (
        (pod_of(job(a_load()))["securityContext"], container["securityContext"]),
        (runner["securityContext"], runner["containerSecurityContext"]),
    ):
        assert pod["runAsNonRoot"] is True
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
    labels = job(a_load())["spec"]["template"]["metadata"]["labels"]
    assert labels == runner["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "test"


def test_the_test_run_says_the_same_as_the_job() -> None:
    load = a_load()
    item = k6_test_run(load)
    assert (item["apiVersion"], item["kind"]) == ("k6.io/v1alpha1", "TestRun")
    spec = item["spec"]
    assert spec["parallelism"] == 1
    assert spec["script"] == {"configMap": {"name": load.name, "file": "mix.js"}}
    assert spec["initializer"] == {"disabled": True}
    # These are strings in its definition.
    assert (spec["quiet"], spec["runner"]["automountServiceAccountToken"]) == ("true", "false")
    (container,) = pod_of(job(load))["containers"]
    assert spec["runner"]["env"] == container["env"]
    assert spec["runner"]["image"] == container["image"]
    assert set(spec["arguments"].split()) <= set(container["command"])


@pytest.mark.parametrize("runner", [job, k6_test_run])
def test_samples_go_to_prometheus_only_when_it_is_switched_on(runner: Any) -> None:
    url = "http://prometheus.monitoring:9090/api/v1/write"
    assert "prometheus" not in json.dumps(runner(a_load()))
    text = json.dumps(runner(a_load(remote_write=url)))
    assert url in text
    assert "experimental-prometheus-rw" in text


def test_pods_of_a_run_are_let_out_to_prometheus() -> None:
    assert network_policy(a_load())["spec"]["policyTypes"] == ["Ingress"]
    write, query = (
        "http://mimir.monitoring:8080/api/v1/push",
        "https://query.monitoring/api/v1/query",
    )
    load = a_load(remote_write=write, query=query)
    spec = network_policy(load)["spec"]
    for item in (job(load), gate_job(load, CRON_JOB, [])):
        labels = item["spec"]["template"]["metadata"]["labels"]
        assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    # A policy of its own that lets out must let out to all that the pods need.
    names, api, prometheus = spec["egress"]
    assert [it["port"] for it in names["ports"]] == [53, 53]
    (peer,) = api["to"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "api"
    assert [it["port"] for it in prometheus["ports"]] == [443, 8080]
    (one,) = network_policy(a_load(remote_write=write, query=write))["spec"]["egress"][-1]["ports"]
    assert one == {"protocol": "TCP", "port": 8080}


def test_who_asks_prometheus_has_the_banks_image_and_no_secrets() -> None:
    item = gate_job(a_load(), CRON_JOB, ["python", "-c", "…"])
    pod = pod_of(item)
    (container,) = pod["containers"]
    assert container["image"] == "ghcr.io/microfin/worker:1"
    assert container["command"][0] == "python"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert "MICROFIN_DATABASES" not in json.dumps(item)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_the_pods_of_a_run_may_run_where_the_bank_may() -> None:
    place = {
        "nodeSelector": {"pool": "bank"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "bank",
        "imagePullSecrets": [{"name": "registry"}],
    }
    cron_job = deepcopy(CRON_JOB)
    cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"] |= place
    assert place_of(cron_job) == place
    load = a_load(place=place_of(cron_job))
    run = k6_test_run(load)["spec"]
    pods = [pod_of(job(load)), pod_of(gate_job(load, cron_job, [])), run["runner"], run["starter"]]
    pods.append(pod_of(ledger_job(load, cron_job, "audit", [])))
    assert all(place.items() <= pod.items() for pod in pods)


def test_everything_of_a_run_has_its_label() -> None:
    load = a_load()
    made = (scripts_map(load), users_secret(load, ""), job(load), k6_test_run(load),
            network_policy(load), ledger_job(load, CRON_JOB, "audit", ["microfin"]),
            gate_job(load, CRON_JOB, ["python"]))  # fmt: skip
    assert {it["metadata"]["labels"][RUN_LABEL] for it in made} == {load.name}
    assert {it["metadata"]["namespace"] for it in made} == {"bank"}


def test_the_ledger_is_asked_as_the_chart_asks_it_once() -> None:
    item = ledger_job(a_load(), CRON_JOB, "audit", ["microfin", "audit", "--at-rest"])
    (container,) = pod_of(item)["containers"]
    assert container["command"] == ["microfin", "audit", "--at-rest"]
    assert container["env"][0]["name"] == "MICROFIN_DATABASES"
    assert item["spec"]["backoffLimit"] == 0
    assert "podFailurePolicy" not in item["spec"]
    # The CronJob's own is as it was.
    template = CRON_JOB["spec"]["jobTemplate"]["spec"]
    assert template["backoffLimit"] == 3
    assert template["template"]["spec"]["containers"][0]["command"][-1] == "--since"


# What is read out of it -------------------------------------------------------------------------


def test_what_k6_printed_is_found_between_other_lines() -> None:
    text = json.dumps(summary())
    log = f'time="…" level=warning msg="{{slots}}"\n{{"level": "info"}}\n{text}level=info\n'
    assert find_object(log, "slots") == summary()
    assert find_object(json.dumps(AUDIT, indent=2), "violations_total") == AUDIT
    assert find_object("{broken\nno object", "slots") is None
    assert find_object('{"a": 1}\n{"a": 2}', "a") == {"a": 2}
    assert find_object('x {"a": 1}', "a") is None


def test_a_log_without_an_object_is_quoted() -> None:
    assert last_words("first\nthe reason\n\n") == "the reason"
    assert "empty" in last_words("\n")


@pytest.mark.parametrize(
    ("status", "how"),
    [
        ({}, ""),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "complete"),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, "failed"),
        ({"conditions": [{"type": "Failed", "status": "False"}]}, ""),
        ({"stage": "started"}, ""),
        ({"stage": "finished"}, "complete"),
        ({"stage": "error"}, "failed"),
    ],
)
def test_how_jobs_and_test_runs_end(status: dict[str, Any], how: str) -> None:
    assert ended({"status": status}) == how


async def test_what_was_decided_is_summed_over_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        def __init__(self, url: str) -> None:
            self.count = {"one": 2, "two": 3}[url]

        @contextlib.asynccontextmanager
        async def transaction(self, *, readonly: bool) -> Any:
            assert readonly
            yield

        async def fetch(self, statement: str) -> list[dict[str, Any]]:
            assert "FROM outcomes" in statement
            return [{"status": "settled", "count": self.count}]

        async def close(self) -> None:
            pass

    async def connect(url: str, statement_cache_size: int) -> Connection:
        assert statement_cache_size == 0
        return Connection(url)

    monkeypatch.setattr(decision_counts, "connect", connect)
    assert await decision_counts.count_decided(["one", "two"]) == {"settled": 5}


PAGE = """\
# TYPE microfin_{part}_phase_seconds histogram
microfin_{part}_phase_seconds_sum{{phase="produce"}} 2.5
"""


class Kubectl:
    """Answers for a namespace with one API pod and two workers' pods, one on its way out."""

    def __init__(self, page: str = PAGE) -> None:
        self.page = page

    def __call__(self, *arguments: str) -> str:
        assert arguments[:2] == ("-n", "bank")
        if arguments[2] == "exec":
            pod, port = arguments[3], arguments[-1].removesuffix("/metrics").rpartition(":")[2]
            part = "api" if "-api-" in pod else "worker"
            assert port == {"api": "8080", "worker": "8081"}[part]
            if not self.page:
                raise DeployError("Connection refused")
            return self.page.format(part=part)
        labels = arguments[arguments.index("-l") + 1]
        assert "app.kubernetes.io/instance=microfin" in labels
        api = [{"metadata": {"name": "microfin-api-x", "uid": "1"}}]
        workers = [
            {"metadata": {"name": "microfin-worker-0", "uid": "2"}},
            {"metadata": {"name": "microfin-worker-0", "uid": "3", "deletionTimestamp": "now"}},
        ]
        return json.dumps({"items": api if "component=api" in labels else workers})


def test_all_pods_report_their_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "kubectl", Kubectl())
    assert Namespace("bank", "microfin").scrape() == {
        "microfin-api-x 1": {"api_produce_sum": 2.5},
        "microfin-worker-0 2": {"worker_produce_sum": 2.5},
    }


@pytest.mark.parametrize("page", ["", "no metric {"])
def test_without_one_pods_answer_there_are_no_totals(
    monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setattr(cluster, "kubectl", Kubectl(page.replace("{", "{{")))
    assert Namespace("bank", "microfin").scrape() is None


# The whole run ----------------------------------------------------------------------------------


class StandIn:
    """Answers as a cluster with a bank would, in which every Job ends at once."""

    name, release = "bank", "microfin"

    def __init__(self, *, k6_log: str, audit_log: str, gate_log: str = "") -> None:
        self.applied: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.logs = {"test": k6_log, "audit": audit_log, "gate": gate_log}
        self.answered = 0
        self.counts = iter([{"settled": 1000}, {"settled": 4000}])

    def get(self, what: str) -> dict[str, Any]:
        kind = what.partition("/")[0]
        if kind == "cronjob":
            return CRON_JOB
        known: dict[str, Any] = {
            "mfc": {"metadata": {"uid": "u"}, "spec": {"shards": 1},
                    "status": {"readyReplicas": 3, "partitions": {"active": 3}}},
            "deployment": {"status": {"readyReplicas": 2}},
            "configmap": {"data": {"MICROFIN_ARGON2_TIME": "1"}},
            "service": {"spec": {"ports": [{"port": 80}]}},
        }  # fmt: skip
        complete = [{"type": "Complete", "status": "True"}]
        return known.get(kind, {"status": {"stage": "finished", "conditions": complete}})

    def context(self) -> str:
        return "kind-microfin"

    def cores(self) -> int:
        return 8

    def brokers(self) -> int | None:
        return None

    def apply(self, *items: dict[str, Any]) -> None:
        self.applied += items

    def log(self, selector: str) -> str:
        what = "test" if "component=test" in selector else selector.rpartition("-")[2]
        return self.logs.get(what) or json.dumps({"decided": next(self.counts)})

    def scrape(self) -> Scrape:
        """Report ten more answers than before, of 20 ms each."""
        self.answered += 10
        totals = {"api_admit_count": 1, "answers_count": 1, "answers_sum": 0.02,
                  "api_admit_sum": 0.005, "worker_commit_sum": 0.015}  # fmt: skip
        return {"pod uid": defaultdict(float, {it: totals[it] * self.answered for it in totals})}

    def worker_states(self) -> list[dict[str, Any]]:
        return [{"state": "working", "lag_records": 0, "outbox_size": 0}] * 3

    def delete_run(self, name: str, *, k6_operator: bool) -> None:
        self.deleted.append(f"{name} {k6_operator}")

    @contextlib.contextmanager
    def api(self, log: Path) -> Iterator[str]:
        del log
        yield "http://127.0.0.1:1"


def a_request(tmp_path: Path, **changes: Any) -> KubernetesRequest:
    fields: dict[str, Any] = {
        "script": "mix.js", "rate": 20, "duration": "15s", "state": tmp_path, "users": 4,
        "allowed_statuses": frozenset({202}), "image": IMAGE, "remote_write": "",
        "prometheus": "", "k6_operator": False, "keep": False, **changes,
    }  # fmt: skip
    return KubernetesRequest(**fields)


@pytest.fixture(autouse=True)
def _prepared_users(monkeypatch: pytest.MonkeyPatch) -> None:
    async def prepare(_api: str, file: Path, *_rest: object, platform: str) -> None:
        await asyncio.to_thread(file.write_text, json.dumps({"users": [platform]}))

    monkeypatch.setattr(kubernetes_run, "prepare_users", prepare)


async def run(stand_in: StandIn, request: KubernetesRequest) -> dict[str, Any]:
    return await run_in_cluster(request, stand_in, lambda _message: None)  # type: ignore[arg-type]


@pytest.mark.parametrize("k6_operator", [False, True])
async def test_the_report_is_that_of_make_load(tmp_path: Path, k6_operator: bool) -> None:
    place = StandIn(k6_log=json.dumps(summary()), audit_log=json.dumps(AUDIT))
    report = await run(place, a_request(tmp_path, script="ping-pong.js", k6_operator=k6_operator))
    assert report["valid"], report["reasons"]
    assert report["settled"] == 600 + 299 + 298 + 300
    assert report["decided"] == {"settled": 3000}
    assert report["audit"]["operations"] == 2000
    assert report["platform"]["argon2_time"] == 1
    assert report["cpu_seconds"] is None
    assert "container_cpu" in report["not_measured"]["cpu_seconds"]
    assert report["phases"]["answers"] == 10
    assert report["phases"]["phases_ms"]["commit"] == 15.0
    assert report["prometheus"] is None
    kinds = [it["kind"] for it in place.applied]
    assert kinds == ["Job", "ConfigMap", "Secret", "NetworkPolicy",
                     "TestRun" if k6_operator else "Job", "Job", "Job"]  # fmt: skip
    names = {it["metadata"]["labels"][RUN_LABEL] for it in place.applied}
    assert place.deleted == [f"{names.pop()} {k6_operator}"]
    assert not names


async def test_two_runs_have_two_names(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        place = StandIn(k6_log=json.dumps(summary()), audit_log=json.dumps(AUDIT))
        await run(place, a_request(tmp_path, keep=True))
        assert place.deleted == []
        names.add(place.applied[-1]["metadata"]["labels"][RUN_LABEL])
    assert len(names) == 2


async def test_a_violation_is_a_run_that_does_not_count(tmp_path: Path) -> None:
    bad = {**AUDIT, "ok": False, "violations_total": 1}
    place = StandIn(k6_log=json.dumps(summary()), audit_log=json.dumps(bad))
    report = await run(place, a_request(tmp_path, script="ping-pong.js"))
    assert not report["valid"]
    assert report["reasons"] == ["The audit found violations, or could not be made."]


def gate_log(requests: int, failed: int = 0, alerts: Sequence[str] = ()) -> str:
    found = {
        "requests": [{"labels": {}, "value": float(requests)}],
        "failed": [{"labels": {}, "value": float(failed)}] if failed else [],
        "alerts": [{"labels": {"alertname": name}, "value": 1.0} for name in alerts],
    }
    return json.dumps({"found": found})


@pytest.mark.parametrize(
    ("log", "reasons"),
    [
        (gate_log(1800), []),
        (gate_log(1700), ["Prometheus got 1700 of 1800 requests."]),
        (gate_log(1800, 3), ["Prometheus reports that 3 of 1800 requests failed."]),
        (gate_log(1800, alerts=["MicrofinAuditFailed", "MicrofinWorkersMissing"]),
         ["Critical alerts fired during the run: MicrofinAuditFailed, MicrofinWorkersMissing."]),
        ("x does not answer: timed out",
         ["Prometheus could not be asked: x does not answer: timed out"]),
    ],
)  # fmt: skip
async def test_what_prometheus_has_of_the_run_decides(
    tmp_path: Path, log: str, reasons: list[str]
) -> None:
    place = StandIn(k6_log=json.dumps(summary()), audit_log=json.dumps(AUDIT), gate_log=log)
    write = "http://prometheus.monitoring:9090/api/v1/write"
    report = await run(place, a_request(tmp_path, script="ping-pong.js", remote_write=write))
    assert report["reasons"] == reasons
    assert report["valid"] is not bool(reasons)
    section = report["prometheus"]
    assert section["url"] == "http://prometheus.monitoring:9090/api/v1/query"
    gate = place.applied[-1]
    name = gate["metadata"]["labels"][RUN_LABEL]
    assert all(f'testid="{name}"' in section["asked"][it] for it in ("requests", "failed"))
    assert 'namespace="bank"' in section["asked"]["alerts"]
    assert json.loads(pod_of(gate)["containers"][0]["command"][-1]) == section["asked"]
    assert (section["answered"] is None) == ("impossible" in section)


async def test_without_an_address_for_queries_nothing_begins(tmp_path: Path) -> None:
    place = StandIn(k6_log="", audit_log="")
    with pytest.raises(LoadImpossible, match="PROMETHEUS"):
        await run(place, a_request(tmp_path, remote_write="http://mimir/api/v1/push"))
    assert place.applied == []


async def test_an_audit_that_says_nothing_is_none(tmp_path: Path) -> None:
    place = StandIn(k6_log=json.dumps(summary()), audit_log="the pooler does not answer")
    report = await run(place, a_request(tmp_path))
    assert report["audit"] == {"ok": False, "impossible": "the pooler does not answer"}


async def test_k6_without_a_summary_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    place = StandIn(k6_log="level=error msg=no such file", audit_log="")
    with pytest.raises(LoadImpossible, match="no such file"):
        await run(place, a_request(tmp_path))
    assert len(place.deleted) == 1


def test_what_is_not_measured_has_the_fields_of_what_is() -> None:
    measured = usage_figures(Usage({"api": 1.0}, {"api": 1}, {"api": 1}), 1.0, 1)
    unknown = unknown_usage("why")
    assert set(unknown) - {"not_measured"} == set(measured)
    assert set(unknown["not_measured"]) == set(measured)
