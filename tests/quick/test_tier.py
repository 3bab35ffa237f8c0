"""The quick tier selects by the fixture, and refuses what the selection missed."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PURE = "def test_pure():\n    pass\n"
WITH_COMPONENTS = "def test_with_components(real_components):\n    pass\n"
THROUGH_A_FIXTURE = """
import pytest

@pytest.fixture
def database(real_components):
    return None

def test_through_a_fixture(database):
    pass
"""
LONG = "import pytest\n\n@pytest.mark.long\ndef test_long():\n    pass\n"
PROCESS = "import subprocess\n\ndef test_start():\n    subprocess.run({command!r}, check=False)\n"
AT_RUN_TIME = "def test_start(request):\n    request.getfixturevalue('real_components')\n"
COROUTINE = """
import asyncio

def test_start():
    async def start():
        await asyncio.create_subprocess_exec("nginx", "-v")
    asyncio.run(start())
"""
CHILD = "import subprocess; subprocess.run(['redis-server', '--version'])"


def run(folder: Path, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_it.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "quick.tier", "-q", "--strict-markers", *options],
        cwd=folder,
        env={
            "PATH": "/usr/sbin:/usr/bin:/bin",
            "PYTHONPATH": str(TESTS),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_tests_without_real_components_are_selected(tmp_path: Path) -> None:
    done = run(tmp_path, PURE + WITH_COMPONENTS + THROUGH_A_FIXTURE + LONG, "--quick", "-rA")
    assert "1 passed, 3 deselected" in done.stdout, done.stdout
    assert "PASSED test_it.py::test_pure" in done.stdout


def test_without_the_option_all_are_selected(tmp_path: Path) -> None:
    done = run(tmp_path, PURE + WITH_COMPONENTS + THROUGH_A_FIXTURE + LONG)
    assert "4 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("text", "component"),
    [
        (PROCESS.format(command=["/usr/lib/postgresql/15/bin/postgres", "--version"]), "postgres"),
        (PROCESS.format(command=["setpriv", "--", "pgbouncer", "--version"]), "pgbouncer"),
        (PROCESS.format(command=["sh", "-c", "exec java -version"]), "java"),
        (COROUTINE, "nginx"),
    ],
    ids=["directly", "behind another program", "by a shell", "by asyncio"],
)
@pytest.mark.parametrize("option", ["--quick", "--verbose"])
def test_a_real_component_without_the_fixture_is_refused(
    tmp_path: Path, text: str, component: str, option: str
) -> None:
    done = run(tmp_path, text, option)
    assert done.returncode == 1, done.stdout
    assert f"This test starts {component}, but it does not request the fixture" in done.stdout


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-c", CHILD], ["sh", "start.sh"]],
    ids=["Python", "shell"],
)
def test_a_real_component_that_another_process_starts_is_refused(
    tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "start.sh").write_text("redis-server --version\n")
    done = run(tmp_path, PROCESS.format(command=command), "--quick")
    assert done.returncode == 1, done.stdout
    assert "This test starts redis-server, but it does not request the fixture" in done.stdout


def test_the_fixture_at_run_time_only_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, AT_RUN_TIME, "--quick")
    assert done.returncode == 1, done.stdout
    assert "requests `real_components` only at run time" in done.stdout


def test_a_component_that_is_started_again_is_not_blamed_on_a_later_test(tmp_path: Path) -> None:
    start = "    import subprocess\n    subprocess.run(['nginx', '-v'], check=False)\n"
    done = run(tmp_path, f"def test_first(real_components):\n{start}\ndef test_later():\n{start}")
    assert "2 passed" in done.stdout, done.stdout
