"""Command line: `python -m microfin_loadtest run mix.js`; `--help` lists the other commands."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from microfin_deploy.commands import DeployError
from microfin_loadtest.compare.command import compare
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.command import figures
from microfin_loadtest.history.make import HistoryRequest, make_history
from microfin_loadtest.kubernetes.cluster import Namespace
from microfin_loadtest.kubernetes.run import IMAGE, KubernetesRequest, run_in_cluster
from microfin_loadtest.overload import Overload
from microfin_loadtest.overload import overload as run_overload
from microfin_loadtest.results import RESULTS, append_result, renew_page
from microfin_loadtest.run import Request, encode
from microfin_loadtest.run import run as make_run
from microfin_loadtest.scaling import renew_model
from microfin_loadtest.subject import running_platform
from microfin_local.platform import REPOSITORY

application = typer.Typer(
    help="Loads the running platform with k6, waits until it is at rest, audits it, and reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
application.command()(compare)
application.command()(figures)
_started = time.monotonic()


def _say(message: str) -> None:
    """Print the run's progress to stderr, apart from the report."""
    print(f"{time.monotonic() - _started:6.1f} s  {message}", file=sys.stderr, flush=True)


@application.command()
def run(  # noqa: PLR0913 - each is an option
    script: Annotated[str, typer.Argument(help="A script of loadtest/, such as mix.js.")],
    *,
    rate: Annotated[int, typer.Option(min=1, help="Iterations a second.")] = 100,
    duration: Annotated[str, typer.Option(help="The run's length, such as 60s or 10m.")] = "60s",
    state: Annotated[Path, typer.Option(help="The platform's folder.")] = REPOSITORY / ".local",
    users: Annotated[int, typer.Option(min=2, help="The number of prepared users.")] = 200,
    allow: Annotated[
        str, typer.Option(envvar="ALLOW", help="More statuses that are expected, such as 503.")
    ] = "",
    grow: Annotated[
        int, typer.Option(envvar="GROW", help="Grow to this many partitions during the run.")
    ] = 0,
    results: Annotated[Path, typer.Option(help="The file that the report is added to.")] = RESULTS,
    audit_since: Annotated[
        bool,
        typer.Option("--audit-since", help="Audit only what came after the last audit --since."),
    ] = False,
) -> None:
    """Make one run; the report is the last line. The exit code is 1 if the run does not count."""
    request = Request(
        script=script,
        rate=rate,
        duration=duration,
        state=state.resolve(),
        users=users,
        allowed_statuses=_statuses(allow),
        grow_to=grow,
        audit_since=audit_since,
    )
    report = asyncio.run(make_run(request, _say))
    append_result(report, results)
    if results.resolve() == RESULTS:
        renew_page()
        renew_model()
    _print_report(report)


@application.command()
def kubernetes(  # noqa: PLR0913 - each is an option
    script: Annotated[str, typer.Argument(help="A script of loadtest/, such as mix.js.")],
    *,
    rate: Annotated[int, typer.Option(min=1, help="Iterations a second.")] = 100,
    duration: Annotated[str, typer.Option(help="The run's length, such as 60s or 10m.")] = "60s",
    namespace: Annotated[
        str, typer.Option(envvar="NAMESPACE", help="The bank's namespace.")
    ] = "microfin",
    release: Annotated[str, typer.Option(help="The name of its Helm release.")] = "microfin",
    image: Annotated[
        str, typer.Option(envvar="K6_IMAGE", help="An image with k6 that the nodes can pull.")
    ] = IMAGE,
    remote_write: Annotated[
        str,
        typer.Option(
            envvar="REMOTE_WRITE",
            help="A Prometheus that k6 also writes samples to: …/api/v1/write. The run counts only "
            "if it has the run's requests, none failed, and no critical alert of the bank fired.",
        ),
    ] = "",
    prometheus: Annotated[
        str,
        typer.Option(
            envvar="PROMETHEUS",
            help="The address of its query API without /api/v1/query, seen from a pod, if it does "
            "not follow from REMOTE_WRITE.",
        ),
    ] = "",
    operator: Annotated[
        bool | None,
        typer.Option(help="Whether the k6 operator runs it; by default if it is installed."),
    ] = None,
    state: Annotated[Path, typer.Option(help="The folder of the prepared users.")] = REPOSITORY
    / ".local",
    users: Annotated[int, typer.Option(min=2, help="The number of prepared users.")] = 200,
    allow: Annotated[
        str, typer.Option(envvar="ALLOW", help="More statuses that are expected, such as 503.")
    ] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Do not delete the run's objects.")] = False,
) -> None:
    """Load the bank in the cluster of KUBECONFIG from inside it; the report is the last line."""
    place = Namespace(namespace, release)
    request = KubernetesRequest(
        script=script,
        rate=rate,
        duration=duration,
        state=state.resolve(),
        users=users,
        allowed_statuses=_statuses(allow),
        image=image,
        remote_write=remote_write,
        prometheus=prometheus,
        k6_operator=place.has_k6_operator() if operator is None else operator,
        keep=keep,
    )
    _print_report(asyncio.run(run_in_cluster(request, place, _say)))


def _statuses(text: str) -> frozenset[int]:
    return frozenset(map(int, text.replace(",", " ").split()))


def _print_report(report: dict[str, Any]) -> None:
    """Print a report; the exit code is 1 if the run does not count."""
    for reason in report["reasons"]:
        _say(f"does not count: {reason}")
    print(encode(report))
    if not report["valid"]:
        raise typer.Exit(1)


@application.command()
def overload(
    *,
    peak: Annotated[
        int, typer.Option(min=3, help="The rate that the platform can serve, requests/s.")
    ] = 1500,
    rate: Annotated[int, typer.Option(min=1, help="The rate of the overload, requests/s.")] = 5000,
    seconds: Annotated[int, typer.Option(min=1, help="The length of each phase.")] = 60,
    state: Annotated[Path, typer.Option(help="The platform's folder.")] = REPOSITORY / ".local",
) -> None:
    """Offer the peak, then an overload, then less; the report is the last line (needs wrk)."""
    _print_report(asyncio.run(run_overload(Overload(peak, rate, seconds, state.resolve()), _say)))


@application.command()
def fill(
    *,
    operations: Annotated[int, typer.Option(min=10, help="Operations to make.")] = 1_000_000,
    accounts: Annotated[int, typer.Option(min=2, help="New accounts to make them on.")] = 100_000,
    owners: Annotated[int, typer.Option(min=1, help="New users who own the accounts.")] = 1_000,
    days: Annotated[int, typer.Option(min=1, help="How long ago the first one was.")] = 365,
    outcomes_per_volume: Annotated[
        int | None, typer.Option(min=1, help="A volume's outcomes; by default as many as ever.")
    ] = None,
    state: Annotated[Path, typer.Option(help="The platform's folder.")] = REPOSITORY / ".local",
) -> None:
    """Give the running platform a past: explained operations, so that the audit stays clean.

    They are decided as workers decide them, and copied into volumes below 0 that are not part of
    the ledger yet; at the end all are added at once. The platform may go on. A million operations
    take 0.6 GB on the disk. What a run that was killed left behind is removed by the next one.
    Prints progress to stderr, and one JSON object as the last line.
    """
    wanted = HistoryRequest(
        operations=operations,
        accounts=accounts,
        owners=owners,
        days=days,
        outcomes_per_volume=outcomes_per_volume,
    )
    urls = running_platform(state.resolve()).postgres_shards
    print(encode(asyncio.run(make_history(urls, wanted, _say))))


@application.command()
def table() -> None:
    """Renew the table in loadtest/results/diary.md from the results file."""
    renew_page()


@application.command()
def scaling() -> None:
    """Renew the cost model in docs/scaling.md from the results file."""
    renew_model()


def main() -> None:
    """Run the command line; print an error that a person can act on, with exit code 1."""
    try:
        application()
    except (LoadImpossible, DeployError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
