"""skaffold.yaml obeys its schema's rules, and what it names exists."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from source.skaffold_schema import violations

ROOT = Path(__file__).resolve().parents[2]


def modules() -> dict[str, dict[str, Any]]:
    text = (ROOT / "skaffold.yaml").read_text(encoding="utf-8")
    return {it["metadata"]["name"]: it for it in yaml.safe_load_all(text)}


def in_production(module: dict[str, Any]) -> dict[str, Any]:
    """Return a module with its profile applied, as skaffold does: sections, then patches."""
    (profile,) = (it for it in module["profiles"] if it["name"] == "production")
    made = copy.deepcopy(module)
    for name, section in profile.items():
        if name not in ("name", "patches"):
            made[name] = {**made[name], **section}
    for patch in profile.get("patches", ()):
        *way, last = patch["path"].strip("/").split("/")
        place: Any = made
        for step in way:
            place = place[int(step)] if isinstance(place, list) else place[step]
        at: Any = int(last) if isinstance(place, list) else last
        assert place[at] is not None, patch  # a path that is not there fails
        if patch["op"] == "remove":
            del place[at]
        else:
            place[at] = patch["value"]
    return made


def forms() -> dict[str, dict[str, Any]]:
    plain = modules()
    with_profile = {name: it for name, it in plain.items() if it.get("profiles")}
    return plain | {f"{name} production": in_production(it) for name, it in with_profile.items()}


FORMS = forms()


def releases(module: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = module["deploy"]["helm"]["releases"]
    return found


def artifacts(module: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = module.get("build", {}).get("artifacts", [])
    return found


def commands(module: dict[str, Any]) -> list[list[str]]:
    hooks = module["deploy"]["helm"].get("hooks", {}).get("after", [])
    return [hook["host"]["command"] for hook in hooks]


@pytest.mark.parametrize("name", FORMS)
def test_each_module_keeps_the_schemas_rules(name: str) -> None:
    assert FORMS[name]["apiVersion"] == "skaffold/v4beta13"
    assert list(violations(FORMS[name], "Config", name)) == []


def test_the_rules_refuse() -> None:
    wrong: dict[str, Any] = {
        "apiVersion": "skaffold/v4beta13",
        "build": {"artifacts": [{"docker": {"targets": "api"}}]},
        "deploy": {"helm": {"releases": "microfin"}, "statusCheckDeadlineSeconds": "600"},
    }
    assert set(violations(wrong, "Config", "it")) == {
        "it needs kind",
        "it.build.artifacts[0] needs image",
        "it.build.artifacts[0].docker has no field targets",
        "it.deploy.helm.releases must be a list",
        "it.deploy.statusCheckDeadlineSeconds must be a whole number",
    }


def test_modules_need_only_those_before_them() -> None:
    before: set[str] = set()
    for name, module in modules().items():
        needed = {it for entry in module.get("requires", ()) for it in entry["configs"]}
        assert needed <= before, name
        before.add(name)
    assert needed == {"operator", "data", "ingress-nginx"}


@pytest.mark.parametrize("name", ["strimzi", "cnpg", "ingress-nginx"])
def test_the_vendors_are_those_of_k8s(name: str) -> None:
    pinned = yaml.safe_load((ROOT / f"k8s/{name}/release.yaml").read_text(encoding="utf-8"))
    (release,) = releases(modules()[name])
    assert release["name"] == name
    found = [release.get(it) for it in ("remoteChart", "repo", "version", "namespace")]
    assert found == [pinned.get(it) for it in ("chart", "repository", "version", "namespace")]
    assert release["wait"] is True


@pytest.mark.parametrize("name", FORMS)
def test_files_and_charts_exist(name: str) -> None:
    for release in releases(FORMS[name]):
        for file in release.get("valuesFiles", ()):
            assert (ROOT / file).is_file(), file
        if "chartPath" in release:
            assert (ROOT / release["chartPath"] / "Chart.yaml").is_file()
    for command in commands(FORMS[name]):
        assert command[0] == "kubectl"
        assert all((ROOT / it).is_file() for it in command if it.endswith(".yaml"))


@pytest.mark.parametrize("name", FORMS)
def test_images_are_targets_of_the_dockerfile(name: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for artifact in artifacts(FORMS[name]):
        assert f" AS {artifact['docker']['target']}\n" in dockerfile


def test_production_builds_what_is_released() -> None:
    targets = {
        artifact["image"]: artifact["docker"]["target"]
        for name, module in FORMS.items()
        if name.endswith("production")
        for artifact in artifacts(module)
    }
    assert all(image == f"ghcr.io/microfin/{target}" for image, target in targets.items())
    for name, module in FORMS.items():
        if name.endswith("production") and artifacts(module):
            assert module["build"]["platforms"] == ["linux/amd64", "linux/arm64"]
            assert not any("sync" in artifact for artifact in artifacts(module))


@pytest.mark.parametrize("name", ["operator", "microfin"])
def test_charts_get_the_images_that_are_built(name: str) -> None:
    module = modules()[name]
    (release,) = releases(module)
    values = yaml.safe_load((ROOT / release["chartPath"] / "values.yaml").read_text("utf-8"))
    known = {re.sub(r"[^a-zA-Z0-9]", "_", it["image"]) for it in artifacts(module)}
    for value, template in release["setValueTemplates"].items():
        part, _, field = value.partition(".")
        assert field in values[part], value
        match = re.fullmatch(r"\{\{\.IMAGE_(?:REPO|TAG)_(\w+)\}\}", template)
        assert match is not None, template
        assert match[1] in known, template


def sync_rules() -> Iterator[dict[str, str]]:
    for artifact in artifacts(modules()["microfin"]):
        yield from artifact.get("sync", {}).get("manual", ())


def test_changed_sources_are_brought_to_where_they_are_run_from() -> None:
    reload = (ROOT / "images/reload.py").read_text(encoding="utf-8")
    rules = list(sync_rules())
    assert len(rules) == 5
    for rule in rules:
        assert rule["src"].startswith(rule["strip"])
        assert list(ROOT.glob(rule["src"])), rule
        assert f'"{rule["dest"]}"' in reload
        package = rule["src"].removeprefix(rule["strip"]).partition("/")[0]
        assert f'"{package}"' in reload


def test_every_module_waits_for_what_the_next_one_needs() -> None:
    waits = {
        name: " ".join(word for command in commands(module) for word in command)
        for name, module in modules().items()
    }
    assert "crd/kafkas.kafka.strimzi.io" in waits["strimzi"]
    assert "--for=condition=Available" in waits["cnpg"]
    assert "crd/microfinclusters.microfin.io" in waits["operator"]
    for needed in ("microfin-postgres-0", "microfin-pooler-0", "microfin-redis", "kafka/microfin"):
        assert needed in waits["data"]
    assert "mfc/microfin" in waits["microfin"]


def test_what_is_verified_is_built_and_let_in() -> None:
    module = modules()["microfin"]
    (case,) = module["verify"]
    assert case["container"]["image"] in {it["image"] for it in artifacts(module)}
    path = ROOT / case["executionMode"]["kubernetesCluster"]["jobManifestPath"]
    job = yaml.safe_load(path.read_text(encoding="utf-8"))
    # Skaffold writes into the template's labels, and fails where there are none.
    assert job["spec"]["template"]["metadata"]["labels"]
    namespace = yaml.safe_load((ROOT / "deploy/verify-namespace.yaml").read_text(encoding="utf-8"))
    assert job["metadata"]["namespace"] == namespace["metadata"]["name"]
    values = yaml.safe_load((ROOT / "deploy/skaffold-values.yaml").read_text(encoding="utf-8"))
    peers = values["networkPolicy"]["ingressController"]
    names = [it["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for it in peers]
    assert job["metadata"]["namespace"] in names
