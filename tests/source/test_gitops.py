"""The guide to GitOps: Argo CD's health check runs in Lua, and the examples fit the charts."""

import re
from typing import Any

import pytest
import yaml
from lupa import lua51  # Argo CD's Lua is 5.1, too.

from microfin_operator.decide import decide
from microfin_operator.observation import Observation
from source.markdown_pages import REPOSITORY
from support.operator import states

GUIDE = REPOSITORY / "docs/guide/gitops.md"
HEALTH = "resource.customizations.health."


def examples() -> list[dict[str, Any]]:
    """Return the guide's objects."""
    text = GUIDE.read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (it for it in examples() if it["kind"] == kind and it["metadata"]["name"] == name)
    return found


def health(kind: str, item: dict[str, Any]) -> tuple[str, str]:
    """Run a kind's health check as Argo CD does; return its status and message."""
    check = named("ConfigMap", "argocd-cm")["data"][f"{HEALTH}{kind}"]
    runtime = lua51.LuaRuntime(unpack_returned_tuples=True)
    run = runtime.eval(f"function(obj)\n{check}\nend")
    answer = run(runtime.table_from(item, recursive=True))
    return answer["status"], answer["message"]


def observed(observation: Observation, **metadata: Any) -> dict[str, Any]:
    """Return the MicrofinCluster with the status that the operator gives it."""
    plan = decide(observation, states.NOW)
    item = states.resource(plan.status)
    item["metadata"] |= metadata
    return item


MICROFIN = "microfin.io_MicrofinCluster"
OF = states.cluster()
FOREIGN = states.topic(OF, 3)
FOREIGN["metadata"]["annotations"]["microfin.io/owned-by"] = "other/bank"


@pytest.mark.parametrize(
    ("item", "status", "words"),
    [
        (states.resource(), "Progressing", "Waiting for microfin's operator"),
        (observed(states.at_rest(OF)), "Healthy", ""),
        (observed(states.at_rest(states.cluster(partitions=6))), "Progressing", ""),
        (observed(states.at_rest(OF, pods=[], reports={})), "Progressing", ""),
        (observed(states.at_rest(states.cluster(paused=True))), "Suspended", "spec.paused"),
        (observed(states.at_rest(OF, topic=FOREIGN)), "Degraded", "other/bank"),
        (observed(states.at_rest(OF), generation=5), "Progressing", "has not seen the last change"),
        (
            observed(states.at_rest(OF), deletionTimestamp="2026-11-23T12:00:00Z"),
            "Progressing",
            "Pending deletion",
        ),
    ],
    ids=["new", "rest", "growing", "no workers", "paused", "degraded", "changed", "deleted"],
)
def test_the_health_of_a_microfincluster(item: dict[str, Any], status: str, words: str) -> None:
    found, message = health(MICROFIN, item)
    assert found == status, message
    assert words in message


def test_the_health_of_an_application() -> None:
    kind = "argoproj.io_Application"
    assert health(kind, {"metadata": {}}) == ("Progressing", "")
    assert health(kind, {"status": {"health": {"status": "Degraded"}}}) == ("Degraded", "")


def test_the_releases_are_synchronised_in_order() -> None:
    waves = [
        int(named("Application", name)["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for name in ("microfin-data", "microfin")
    ]
    assert waves == sorted(set(waves))
    needed = named("HelmRelease", "microfin")["spec"]["dependsOn"]
    assert {it["name"] for it in needed} == {"microfin-data", "microfin-operator"}


def test_nothing_of_the_data_is_pruned() -> None:
    assert (
        named("Application", "microfin-data")["spec"]["syncPolicy"]["automated"]["prune"] is False
    )
    for release in ("microfin-data", "microfin"):
        metadata = named("HelmRelease", release)["metadata"]
        assert metadata["annotations"]["kustomize.toolkit.fluxcd.io/prune"] == "disabled"


def test_flux_uninstalls_nothing_that_fails() -> None:
    for release in ("microfin-data", "microfin"):
        spec = named("HelmRelease", release)["spec"]
        assert [spec[it]["strategy"]["name"] for it in ("install", "upgrade")] == [
            "RetryOnFailure"
        ] * 2


def test_flux_waits_longer_than_a_migration_may_take() -> None:
    values = yaml.safe_load((REPOSITORY / "charts/microfin/values.yaml").read_text("utf-8"))
    minutes = named("HelmRelease", "microfin")["spec"]["timeout"]
    assert int(minutes.removesuffix("m")) * 60 > values["migrations"]["activeDeadlineSeconds"]


def test_what_people_write_is_ignored_and_never_rendered() -> None:
    (argo,) = named("Application", "microfin")["spec"]["ignoreDifferences"]
    (flux,) = named("HelmRelease", "microfin")["spec"]["driftDetection"]["ignore"]
    assert argo["jsonPointers"] == flux["paths"] == ["/spec/partitions"]
    template = REPOSITORY / "charts/microfin/templates/microfincluster.yaml"
    assert not re.search(r"^ *partitions:", template.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_hooks_are_those_that_argo_cd_maps() -> None:
    """It ignores hooks of other kinds, and tests."""
    templates = (REPOSITORY / "charts").glob("*/templates/**/*.yaml")
    text = "\n".join(path.read_text(encoding="utf-8") for path in templates)
    assert set(re.findall(r"helm\.sh/hook\"?:? \"?([a-z,-]+)", text)) == {
        "pre-install,pre-upgrade",
        "test",
    }
    assert "argocd.argoproj.io/hook" not in text
