"""Lint of the release workflow, which cannot run here: what it names must exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from microfin_deploy.images import COMPONENTS

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/release.yaml"
BY_VERSION_OR_COMMIT = re.compile(r"[\w.-]+/[\w./-]+@(v\d+(\.\d+){0,2}|[0-9a-f]{40})")


def workflow() -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return read


def jobs() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow()["jobs"]
    return found


def steps() -> list[dict[str, Any]]:
    return [step for job in jobs().values() for step in job["steps"]]


def scripts() -> list[str]:
    return [step["run"] for step in steps() if "run" in step]


def test_it_begins_by_a_version_tag_or_by_hand_and_may_only_read() -> None:
    # YAML 1.1 reads the key `on` as true.
    begins = workflow()[True]
    assert begins["push"] == {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}
    assert "workflow_dispatch" in begins
    assert workflow()["permissions"] == {"contents": "read"}
    for job in jobs().values():
        assert job.get("permissions", {}).get("contents", "read") == "read"


def test_every_job_has_a_machine_a_time_limit_and_steps() -> None:
    for name, job in jobs().items():
        assert {"runs-on", "timeout-minutes", "steps"} <= job.keys(), name
        assert all(("run" in step) != ("uses" in step) for step in job["steps"]), name


def test_jobs_wait_for_jobs_that_exist_and_nothing_is_published_untested() -> None:
    found = jobs()
    before = {name: job.get("needs") for name, job in found.items()}
    assert before == {"kind": None, "images": "kind", "charts": "images"}
    assert found["images"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert "packages" not in found["kind"].get("permissions", {})


def test_actions_are_named_by_a_version_or_a_commit() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    for action in used:
        assert BY_VERSION_OR_COMMIT.fullmatch(action), action


def test_every_target_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = {name for script in scripts() for name in re.findall(r"\bmake ([a-z0-9-]+)", script)}
    assert {"kind-up", "deploy", "e2e"} <= named
    assert named <= targets


def test_the_end_to_end_tests_that_are_named_exist() -> None:
    words = {
        word for script in scripts() for word in re.findall(r"make e2e ARGS='-k (\w+)'", script)
    }
    assert words
    assert all((ROOT / f"tests/e2e/test_{word}.py").is_file() for word in words)


def test_all_images_are_built_for_two_architectures_with_an_sbom() -> None:
    images = jobs()["images"]
    assert images["strategy"]["matrix"]["target"] == list(COMPONENTS)
    (build,) = (it for it in images["steps"] if "build-push" in it.get("uses", ""))
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert build["with"]["sbom"] is True
    assert build["with"]["push"] is True


def test_all_charts_are_pushed() -> None:
    charts = {path.parent.name for path in (ROOT / "charts").glob("*/Chart.yaml")}
    (loop,) = re.findall(r"for chart in ([^;]+);", "\n".join(scripts()))
    assert set(loop.split()) == charts


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.split("\n")[0][:40])
def test_the_scripts_are_bash(script: str) -> None:
    # What GitHub puts in is put in before bash reads it.
    text = re.sub(r"\$\{\{.*?\}\}", "value", script)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
