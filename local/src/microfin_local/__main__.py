"""Command line: `python -m microfin_local run`, `start`, `stop`, `status` and the rest."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from microfin_local import process_tree
from microfin_local.background import start_detached, stop_detached
from microfin_local.cleanup import clean as forget_state
from microfin_local.complaints import complaints
from microfin_local.configuration import from_environment, recall, refuse_changed_form
from microfin_local.endpoints import Endpoints, read_endpoints
from microfin_local.errors import PlatformError
from microfin_local.foreground import run_until_stopped
from microfin_local.growth import ask_to_grow
from microfin_local.ownership import owner
from microfin_local.platform import PROCESSES_FILE, REPOSITORY
from microfin_local.prometheus import observe as run_prometheus
from microfin_local.session import summary, where_things_are
from microfin_local.supervisor import read_record, running

application = typer.Typer(
    help="The whole microfin platform on one machine: real components, no containers. "
    "WORKERS, SHARDS, BROKERS (1 or 3), REDIS_REPLICAS (0 or 1), API_PROCESSES and ARCHIVES (0 or "
    "1) are environment variables; MICROFIN_ settings are passed on to the API and the workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(highlight=False, markup=False, soft_wrap=True)
_NAME = Annotated[str, typer.Argument(help="A process's name, such as worker-0; see `status`.")]


def _timed_speaker() -> Callable[[str], None]:
    started = time.monotonic()

    def say(message: str) -> None:
        _console.print(f"{time.monotonic() - started:6.1f} s  {message}")

    return say


@application.callback()
def _choose_state(
    context: typer.Context,
    state: Annotated[Path, typer.Option(help="Folder of data, logs and passwords.")] = REPOSITORY
    / ".local",
) -> None:
    context.obj = state.resolve()


@application.command()
def run(
    context: typer.Context,
    *,
    quiet: Annotated[bool, typer.Option(help="Do not print addresses and folders.")] = False,
) -> None:
    """Start everything and stay in the foreground until Ctrl-C."""
    state: Path = context.obj

    def print_summary(endpoints: Endpoints) -> None:
        if not quiet:
            _console.print("\n" + summary(state, endpoints, "Ctrl-C"))

    configuration = from_environment(os.environ, state)
    asyncio.run(run_until_stopped(configuration, _timed_speaker(), print_summary))


@application.command()
def start(context: typer.Context) -> None:
    """Start everything in the background, and return when all is ready."""
    state: Path = context.obj
    refuse_changed_form(from_environment(os.environ, state), recall(state))
    running_already = owner(state)
    endpoints = read_endpoints(state)
    if running_already is not None and endpoints is not None:
        _console.print(
            f"The platform is running already (process {running_already}). To change its settings, "
            "stop it with `make stop` first.\n"
        )
    else:
        endpoints = start_detached(state, os.environ, _console.print)
    _console.print("\n" + summary(state, endpoints, "`make stop`"))


@application.command()
def stop(context: typer.Context) -> None:
    """Stop the platform, also one that another shell started."""
    stopped = stop_detached(context.obj)
    _console.print("Stopped." if stopped else "The platform is not running.")


@application.command()
def grow(
    context: typer.Context,
    workers: Annotated[
        int, typer.Option(envvar="WORKERS", min=1, help="The number of partitions and workers.")
    ],
) -> None:
    """Grow the running platform to more partitions and workers while money moves."""
    _console.print(ask_to_grow(context.obj, workers))


@application.command()
def observe(context: typer.Context) -> None:
    """Run Prometheus for the running platform, with the charts' alerts, until Ctrl-C."""
    asyncio.run(run_prometheus(context.obj, _console.print))


@application.command()
def status(context: typer.Context) -> None:
    """Show processes, addresses and problems. The exit code is 1 if the platform does not run."""
    state: Path = context.obj
    if owner(state) is None:
        _console.print("The platform is not running. `make start` starts it.")
        raise typer.Exit(1)
    table = Table("process", "state", "process id", "restarts", box=None)
    for process in read_record(state / PROCESSES_FILE):
        process_id = str(process["process_id"] or "")
        restarts = str(process["restarts"])
        table.add_row(process["name"], process["state"], process_id, restarts)
    _console.print(table)
    endpoints = read_endpoints(state)
    where = "Not ready yet." if endpoints is None else where_things_are(state, endpoints)
    _console.print(f"\n{where}")
    wrong = [] if endpoints is None else asyncio.run(complaints(endpoints))
    if wrong:
        _console.print("\n" + "\n".join(["What is wrong:", *(f"  {line}" for line in wrong)]))


@application.command()
def clean(context: typer.Context) -> None:
    """Remove data, logs and passwords; downloads stay."""
    forget_state(context.obj)
    _console.print(f"{context.obj} is clean.")


def _process_of(context: typer.Context, name: str) -> tuple[int, signal.Signals]:
    """Return the id and the stop signal of a running process."""
    record = {process["name"]: process for process in read_record(context.obj / PROCESSES_FILE)}
    if name not in record:
        known = ", ".join(record) or "none, the platform is not running"
        raise PlatformError(f"There is no process called {name}; there are: {known}.")
    if not running(record[name]):
        raise PlatformError(f"{name} is not running at the moment.")
    return record[name]["process_id"], signal.Signals(record[name]["stop_signal"])


@application.command()
def kill(context: typer.Context, name: _NAME) -> None:
    """Kill a process as a crash would (SIGKILL, children too); it is started again."""
    process_tree.signal_tree(_process_of(context, name)[0], signal.SIGKILL)


@application.command()
def restart(context: typer.Context, name: _NAME) -> None:
    """Ask a process to end gracefully; it is started again."""
    process_id, number = _process_of(context, name)
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        raise PlatformError(f"{name} has just ended.") from None


@application.command()
def pause(context: typer.Context, name: _NAME) -> None:
    """Freeze a process and its children (SIGSTOP): they stay connected and do not answer."""
    process_tree.signal_tree(_process_of(context, name)[0], signal.SIGSTOP)


@application.command()
def resume(context: typer.Context, name: _NAME) -> None:
    """Continue a frozen process."""
    process_tree.signal_tree(_process_of(context, name)[0], signal.SIGCONT)


def main() -> None:
    """Run the command line; print a PlatformError as a sentence, with exit code 1."""
    try:
        application()
    except PlatformError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
