"""The vendors' folders of k8s/: versions, values and READMEs that agree with each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from microfin_api.__main__ import _KEEP_ALIVE_SECONDS
from microfin_api.app import LONGEST_SECONDS
from microfin_deploy.kind import VENDORS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "k8s").glob("*/README.md"))
RELEASED = [folder for folder in FOLDERS if (folder / "release.yaml").is_file()]
SECTIONS = ("Version", "Install", "Upgrade", "When it fails")
DATA = re.compile(r"`((?:kafka|postgres|redis|metrics|spread|trim|secrets)(?:\.[a-zA-Z]+)+)`")


def name_of(folder: Path) -> str:
    return folder.name


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(text_of(path))
    return read


def has_path(values: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def test_the_folders_are_those_that_the_charts_need_and_kind_installs_all_releases() -> None:
    assert {"strimzi", "cnpg", "redis-cluster", "ingress-nginx"} <= {it.name for it in FOLDERS}
    assert set(VENDORS) == {folder.name for folder in RELEASED}


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_each_readme_says_what_a_platform_team_asks(folder: Path) -> None:
    headings = re.findall(r"^## (.+)$", text_of(folder / "README.md"), re.MULTILINE)
    assert set(SECTIONS) <= set(headings)
    assert any(heading.startswith("Sizing") for heading in headings)


@pytest.mark.parametrize("folder", RELEASED, ids=name_of)
def test_each_readme_says_how_to_pull_from_a_registry_of_ones_own(folder: Path) -> None:
    section = text_of(folder / "README.md").partition("## From a registry of your own\n")[2]
    assert "registry.example.com" in section.partition("\n## ")[0]


@pytest.mark.parametrize("folder", RELEASED, ids=name_of)
def test_there_are_values_for_one_node_and_for_three_zones(folder: Path) -> None:
    for name in ("values.yaml", "values-dev.yaml", "values-production.yaml"):
        assert load(folder / name), name


def test_the_ingress_controller_is_the_last_release_by_digest_and_runs_no_snippets() -> None:
    controller = load(ROOT / "k8s/ingress-nginx/values.yaml")["controller"]
    assert controller["image"]["tag"] == "v1.15.1"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", controller["image"]["digest"])
    assert controller["allowSnippetAnnotations"] is False
    assert controller["config"]["proxy-next-upstream"] == "off"
    # A ConfigMap holds strings only.
    assert all(isinstance(value, str) for value in controller["config"].values())


def test_a_client_that_is_too_fast_gets_429_and_not_503() -> None:
    """503 says that the bank is overloaded: clients then repeat, and people are called."""
    folder = ROOT / "k8s/ingress-nginx"
    config = load(folder / "values.yaml")["controller"]["config"]
    assert config["limit-req-status-code"] == config["limit-conn-status-code"] == "429"
    assert "limit-burst-multiplier" in text_of(folder / "README.md")


def test_the_ingress_controller_takes_cert_managers_solver_and_says_hsts() -> None:
    """The solver of HTTP-01 sets whitelist-source-range, whose risk is Medium."""
    config = load(ROOT / "k8s/ingress-nginx/values.yaml")["controller"]["config"]
    assert config["annotations-risk-level"] == "Medium"
    assert config["hsts"] == "true"
    assert int(config["hsts-max-age"]) >= 31_536_000


def test_proxies_wait_longer_than_the_api() -> None:
    config = load(ROOT / "k8s/ingress-nginx/values.yaml")["controller"]["config"]
    assert int(config["proxy-read-timeout"]) > LONGEST_SECONDS
    gateway = load(ROOT / "charts/microfin/values.yaml")["gateway"]
    assert int(gateway["timeout"].removesuffix("s")) > LONGEST_SECONDS


def test_traefik_has_the_settings_of_the_ingress_controller_and_sends_nothing_twice() -> None:
    config = load(ROOT / "k8s/ingress-nginx/values.yaml")["controller"]["config"]
    listed = load(ROOT / "k8s/traefik/values.yaml")["additionalArguments"]
    given = dict(it.removeprefix("--").split("=", 1) for it in listed)
    provider = "providers.kubernetesingressnginx"
    transport = "serverstransport.forwardingtimeouts"
    for name in ("proxy-read-timeout", "proxy-send-timeout", "proxy-connect-timeout"):
        assert given[f"{provider}.{name.replace('-', '')}"] == config[name]
    assert int(given[f"{provider}.proxybodysize"]) == 1024 * int(config["proxy-body-size"][:-1])
    assert given[f"{provider}.proxyrequestbuffering"] == "true"
    # Traefik's `error` repeats what it could not send, unlike nginx's.
    assert given[f"{provider}.proxynextupstream"] == "error"
    for name in (f"{provider}.upstreamkeepalivetimeout", f"{transport}.idleconntimeout"):
        assert int(given[name].removesuffix("s")) < _KEEP_ALIVE_SECONDS
    waits = given[f"{transport}.responseheadertimeout"]
    assert int(waits.removesuffix("s")) > LONGEST_SECONDS


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_values_of_our_charts_that_are_named_exist(folder: Path) -> None:
    known = [load(ROOT / f"charts/{chart}/values.yaml") for chart in ("microfin-data", "microfin")]
    for path in DATA.findall(text_of(folder / "README.md")):
        assert any(has_path(values, path) for values in known), path


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_the_examples_are_values_of_the_chart_microfin(folder: Path) -> None:
    known = load(ROOT / "charts/microfin/values.yaml")
    for example in re.findall(r"```yaml\n(.*?)```", text_of(folder / "README.md"), re.DOTALL):
        for part, values in yaml.safe_load(example).items():
            assert all(has_path(known, f"{part}.{name}") for name in values), example


def test_redis_is_the_version_that_its_readme_names() -> None:
    tag = load(ROOT / "charts/microfin-data/values.yaml")["redis"]["image"]["tag"]
    assert f"Redis {tag} " in text_of(ROOT / "k8s/redis-cluster/README.md")
    assert f"docker.io/library/redis:{tag} " in text_of(ROOT / "docs/guide/production.md")


def test_kafka_is_the_version_that_strimzis_readme_names() -> None:
    version = load(ROOT / "charts/microfin-data/values.yaml")["kafka"]["version"]
    assert f"microfin-data uses {version} " in text_of(ROOT / "k8s/strimzi/README.md")


def test_every_page_and_test_names_the_versions_that_are_pinned() -> None:
    """`release.yaml` owns a vendor's version; what else names it must agree."""
    pinned = {folder.name: load(folder / "release.yaml")["version"] for folder in RELEASED}
    kubeconform = text_of(ROOT / "charts/kubeconform.sh")
    assert f"strimzi-kafka-operator --version {pinned['strimzi']} " in kubeconform
    (cnpg,) = re.findall(r"operator (1\.\d+\.\d+)\. ", text_of(ROOT / "k8s/cnpg/README.md"))
    assert f"cloudnative-pg@v{cnpg})" in kubeconform
    # Chart 0.29.1 has 1.30.1: their last numbers rise together.
    assert cnpg.split(".")[2] == pinned["cnpg"].split(".")[2]
    assert tuple(map(int, cnpg.split("."))) >= (1, 30, 1)
    (script,) = (ROOT / "tests/e2e").glob("on_*.sh")
    (traefik,) = set(re.findall(r"traefik(?:/v3@|:)(v[\d.]+)", text_of(script)))
    (definitions,) = re.findall(r"gateway-api@(v[\d.]+)", text_of(script))
    readme = text_of(ROOT / "k8s/traefik/README.md")
    assert f"Traefik {traefik}, with the Gateway API's definitions {definitions}." in readme
    assert f"image.tag={traefik} " in readme
    (k6,) = set(re.findall(r"controller-v([\d.]+)", text_of(script)))
    assert f"k6-operator@v{k6}\n" in text_of(script)
    assert f"operator {k6}: the version with which our tests run" in text_of(
        ROOT / "k8s/k6-operator/README.md"
    )
    assert pinned["k6-operator"].partition(".")[2] == k6.partition(".")[2]
    (reporter,) = re.findall(r"<reporter.version>(.*)<", text_of(ROOT / "local/kafka/pom.xml"))
    assert set(re.findall(r"reporter (\d[\d.]+)", text_of(ROOT / "docs/reference/metrics.md"))) == {
        reporter
    }


def test_prometheus_reads_the_parts_that_know_when_certificates_expire() -> None:
    monitor = load(ROOT / "k8s/strimzi/podmonitor.yaml")
    assert monitor["spec"]["selector"]["matchLabels"] == {"strimzi.io/kind": "cluster-operator"}
    nginx = load(ROOT / "k8s/ingress-nginx/values-monitoring.yaml")["controller"]["metrics"]
    assert nginx["serviceMonitor"]["enabled"] is True
    labels = [monitor["metadata"]["labels"], nginx["serviceMonitor"]["additionalLabels"]]
    for chart, path in (("microfin", "monitoring"), ("microfin-data", "metrics")):
        labels.append(load(ROOT / f"charts/{chart}/values.yaml")[path]["labels"])
    labels.append(load(ROOT / "charts/microfin-operator/values.yaml")["metrics"]["labels"])
    assert labels == [{"release": "kube-prometheus-stack"}] * 5
    guide = text_of(ROOT / "docs/guide/production.md")
    assert "k8s/strimzi/podmonitor.yaml" in guide
    assert "k8s/ingress-nginx/values-monitoring.yaml" in guide


def test_redis_users_are_those_that_its_readme_names() -> None:
    script = text_of(ROOT / "charts/microfin-data/files/redis-start.sh")
    made = set(re.findall(r"^user (\w+) ", script, re.MULTILINE))
    users = text_of(ROOT / "k8s/redis-cluster/README.md").partition("## Users")[2]
    described = set(re.findall(r"^\| `(\w+)` \|", users.partition("\n## ")[0], re.MULTILINE))
    assert described == made
