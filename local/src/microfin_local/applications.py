"""microfin's own processes: the migrations, the workers (one a partition) and the API."""

import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from microfin_local.errors import PlatformError
from microfin_local.files import last_lines
from microfin_local.supervised import Program, run_to_end

# -P: Python imports no module from the working folder.
_PYTHON_MODULE = (sys.executable, "-P", "-m")


def _environment(settings: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return a process's settings; those that connect it to this platform override `extra`."""
    return {"PYTHONUNBUFFERED": "1", **extra, **settings}


async def grow_routing(
    settings: Mapping[str, str], partitions: int, folder: Path, log: Path
) -> None:
    """Spread accounts over more partitions. Raises PlatformError with the log's last lines."""
    command = str(Path(sys.executable).with_name("microfin"))
    program = Program(
        name="grow",
        arguments=(command, "routing", "grow", "--partitions", str(partitions)),
        directory=folder,
        environment=_environment(settings, {}),
    )
    code = await run_to_end(program, log)
    if code != 0:
        raise PlatformError(f"`microfin routing grow` did not finish.\n{last_lines(log)}")


async def migrate(
    settings: Mapping[str, str], partitions: int, folder: Path, log: Path, *, archives: bool = False
) -> None:
    """Make or renew the schema on all shards, and then on their archives if there are any.

    Raises PlatformError with the log's last lines.
    """
    command = str(Path(sys.executable).with_name("microfin"))
    calls = [("--partitions", str(partitions)), *([("--archives",)] if archives else [])]
    for options in calls:
        program = Program(
            name="migrate",
            arguments=(command, "migrate", *options),
            directory=folder,
            environment=_environment(settings, {}),
        )
        code = await run_to_end(program, log)
        if code != 0:
            raise PlatformError(f"`microfin migrate` failed (exit code {code}).\n{last_lines(log)}")


def worker(
    partition: int,
    port: int,
    folder: Path,
    settings: Mapping[str, str],
    extra: Mapping[str, str],
) -> Program:
    """Return how to run the worker of a partition."""
    own = {
        "MICROFIN_PARTITION": str(partition),
        "MICROFIN_WORKER_HOST": "127.0.0.1",
        "MICROFIN_WORKER_PORT": str(port),
    }
    return Program(
        name=f"worker-{partition}",
        arguments=(*_PYTHON_MODULE, "microfin_worker"),
        directory=folder,
        environment=_environment({**settings, **own}, extra),
        grace_seconds=15,
    )


def api(
    number: int, port: int, folder: Path, settings: Mapping[str, str], extra: Mapping[str, str]
) -> Program:
    """Return how to run one API process."""
    # All clients have the same address here, and load runs sign up hundreds of users.
    extra = {"MICROFIN_SIGN_UP_ADDRESS_RATE": "0", **extra}
    own = {
        "MICROFIN_API_HOST": "127.0.0.1",
        "MICROFIN_API_PORT": str(port),
        "MICROFIN_TRUSTED_PROXIES": "127.0.0.1/32",
    }
    return Program(
        name=f"api-{number}",
        arguments=(*_PYTHON_MODULE, "microfin_api"),
        directory=folder,
        environment=_environment({**settings, **own}, extra),
        grace_seconds=20,
    )


async def is_ready(base_url: str) -> bool:
    """Return whether a process answers 200 to `/readyz`. Raises OSError if it does not answer."""
    async with httpx.AsyncClient(timeout=4) as client:
        try:
            answer = await client.get(f"{base_url}/readyz")
        except httpx.TransportError as error:
            raise ConnectionError(str(error)) from error
    return answer.status_code == 200
