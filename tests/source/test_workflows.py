"""All workflows: pinned actions, the least permissions, and no trust in a pull request."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github/workflows"
WORKFLOWS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("*.yml")])
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
USES = re.compile(r"^\s*(?:- )?uses: *(.*)$", re.MULTILINE)
# What somebody else may write, and a shell would read as commands.
UNTRUSTED = re.compile(
    r"\$\{\{[^}]*\b(github\.event\.|github\.head_ref|github\.ref_name|github\.actor|inputs\.)"
)

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def workflow(path: Path) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load(text_of(path))
    return read


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def scripts() -> list[Any]:
    return [
        pytest.param(step["run"], id=f"{path.stem}-{step['run'].splitlines()[0][:40]}")
        for path in WORKFLOWS
        for step in steps(path)
        if "run" in step
    ]


def test_there_are_the_workflows_that_we_rely_on() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"pull-request", "nightly", "security", "release"}


@every_workflow
def test_each_action_is_pinned_by_commit_with_its_version(path: Path) -> None:
    used = USES.findall(text_of(path))
    assert len(used) == sum("uses" in step for step in steps(path))
    for action in used:
        assert PINNED.fullmatch(action), action


def test_an_action_has_one_version_in_all_workflows() -> None:
    used = {action for path in WORKFLOWS for action in USES.findall(text_of(path))}
    names = [action.partition("@")[0] for action in used]
    assert sorted(names) == sorted(set(names))


@every_workflow
def test_nothing_is_permitted_but_what_a_job_names(path: Path) -> None:
    assert workflow(path)["permissions"] == {}
    for name, job in workflow(path)["jobs"].items():
        assert isinstance(job.get("permissions"), dict), name
        assert job["permissions"].get("contents") in {"read", None}, name


@every_workflow
def test_only_a_release_may_write(path: Path) -> None:
    for name, job in workflow(path)["jobs"].items():
        writes = {scope for scope, right in job["permissions"].items() if right == "write"}
        if path.stem != "release":
            assert not writes, name
        elif writes:
            assert job["if"] == "startsWith(github.ref, 'refs/tags/v')", name


@every_workflow
def test_a_pull_request_never_runs_with_our_secrets(path: Path) -> None:
    begins = workflow(path)[True]  # YAML 1.1 reads the key `on` as true.
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(begins)
    if "pull_request" in begins:
        assert "{{ secrets." not in text_of(path)


@every_workflow
def test_a_checkout_leaves_no_token_behind(path: Path) -> None:
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@every_workflow
def test_every_job_has_a_machine_of_one_version_and_a_time_limit(path: Path) -> None:
    for name, job in workflow(path)["jobs"].items():
        assert re.fullmatch(r"ubuntu-\d+\.\d+", job["runs-on"]), name
        assert job["timeout-minutes"] <= 120, name
        assert all(("run" in step) != ("uses" in step) for step in job["steps"]), name


@every_workflow
def test_programs_and_targets_of_make_that_are_named_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for step in steps(path):
        script = step.get("run", "")
        assert set(re.findall(r"\bmake ([a-z0-9-]+)", script)) <= targets
        for program in re.findall(r"(?:^|\s)((?:\.github|charts|website)/[\w/.-]+\.sh)", script):
            assert (ROOT / program).is_file(), program


@pytest.mark.parametrize("script", scripts())
def test_scripts_are_bash_and_hold_nothing_that_others_write(script: str) -> None:
    assert not UNTRUSTED.search(script), "pass it by env"
    # GitHub inserts values before bash reads the script.
    text = re.sub(r"\$\{\{.*?\}\}", "value", script)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_pull_request_runs_lint_the_quick_tier_and_the_site() -> None:
    path = FOLDER / "pull-request.yaml"
    assert "pull_request" in workflow(path)[True]
    commands = "\n".join(step.get("run", "") for step in steps(path))
    for command in ("make lint", "make test-quick", "make site", ".github/lint.sh"):
        assert command in commands


def test_every_night_all_tests_run_and_the_charts_are_judged() -> None:
    path = FOLDER / "nightly.yaml"
    assert workflow(path)[True]["schedule"]
    commands = "\n".join(step.get("run", "") for step in steps(path))
    for command in ("make test\n", "charts/unittest.sh", "charts/kubeconform.sh"):
        assert command in f"{commands}\n"


def test_known_vulnerabilities_and_secrets_close_the_gate() -> None:
    path = FOLDER / "security.yaml"
    assert {"pull_request", "schedule"} <= set(workflow(path)[True])
    assert any(".github/secrets.sh" in step.get("run", "") for step in steps(path))
    for where in (path, FOLDER / "release.yaml"):
        scans = [step for step in steps(where) if "anchore/scan-action@" in step.get("uses", "")]
        assert scans, where.name
        for scan in scans:
            assert scan["with"]["fail-build"] is True
            assert scan["with"]["severity-cutoff"] == "high"


def test_updates_are_proposed_for_all_that_is_pinned() -> None:
    settings = yaml.safe_load(text_of(ROOT / ".github/dependabot.yml"))
    watched = {
        (update["package-ecosystem"], folder)
        for update in settings["updates"]
        for folder in update.get("directories", [update.get("directory")])
    }
    assert {("github-actions", "/"), ("docker", "/"), ("maven", "/local/kafka")} <= watched
    pins = {"/", "/images", "/website"}
    assert pins <= {folder for ecosystem, folder in watched if ecosystem == "pip"}
    for ecosystem, folder in watched:
        assert (ROOT / folder.lstrip("/")).is_dir(), (ecosystem, folder)
