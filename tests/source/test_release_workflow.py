"""The release workflow, which cannot run here: what it names must exist.

`test_workflows.py` checks what all workflows have in common.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from microfin_deploy.images import COMPONENTS

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/release.yaml"


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
    scanned, build = (it for it in images["steps"] if "build-push" in it.get("uses", ""))
    assert "push" not in scanned["with"], "it is pushed after the scan"
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert build["with"]["sbom"] is True
    assert build["with"]["provenance"] == "mode=max"
    assert build["with"]["push"] is True


def test_all_charts_are_pushed() -> None:
    charts = {path.parent.name for path in (ROOT / "charts").glob("*/Chart.yaml")}
    assert set(jobs()["charts"]["strategy"]["matrix"]["chart"]) == charts


@pytest.mark.parametrize(("job", "pushed"), [("images", "build"), ("charts", "push")])
def test_what_is_pushed_is_signed_by_its_digest_and_has_a_provenance(job: str, pushed: str) -> None:
    digest = f"${{{{ steps.{pushed}.outputs.digest }}}}"
    after = [*jobs()[job]["steps"]]
    while after.pop(0).get("id") != pushed:
        pass
    (sign,) = (step for step in after if "cosign sign" in step.get("run", ""))
    (signed,) = sign["env"].values()
    assert signed.endswith(f"@{digest}")
    (attest,) = (it for it in after if "attest-build-provenance@" in it.get("uses", ""))
    assert attest["with"]["subject-digest"] == digest
    assert signed == f"{attest['with']['subject-name']}@{digest}"
    assert jobs()[job]["permissions"]["id-token"] == "write"


def test_an_image_with_a_known_vulnerability_is_not_pushed() -> None:
    used = [step.get("uses", "").partition("@")[0] for step in jobs()["images"]["steps"]]
    scan = used.index("anchore/scan-action")
    assert used[scan - 1] == "docker/build-push-action"
    assert "docker/build-push-action" in used[scan + 1 :]
