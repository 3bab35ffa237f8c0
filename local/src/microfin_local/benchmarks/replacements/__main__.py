"""`python -m microfin_local.benchmarks.replacements NAME`: one comparison, as one JSON object."""

import logging
from collections.abc import Coroutine
from typing import Annotated, Any

import msgspec
import structlog
import typer
import uvloop

from microfin_local.benchmarks.replacements.http_protocol import measure_http_protocol
from microfin_local.benchmarks.replacements.one_round_trip import measure_one_round_trip
from microfin_local.benchmarks.replacements.phase_seconds import measure_phase_seconds
from microfin_local.benchmarks.replacements.redis_node import measure_redis_node
from microfin_local.benchmarks.replacements.side_by_side import RUNS

application = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Measure what we made by hand beside the library's own way. Prints one JSON object.",
)

Runs = Annotated[int, typer.Option(help="Runs of each way; the median counts.")]


@application.command()
def redis_node(runs: Runs = RUNS) -> None:
    """Compare microfin.redis.node with redis-py, on a real Redis Cluster."""
    _print(measure_redis_node(runs))


@application.command()
def http_protocol(runs: Runs = RUNS) -> None:
    """Compare microfin_api.http.protocol with uvicorn's protocol, on a socket."""
    _print(measure_http_protocol(runs))


@application.command()
def one_round_trip(runs: Runs = RUNS) -> None:
    """Compare OneRoundTrip with asyncpg's fetchrow, through a real PgBouncer."""
    _print(measure_one_round_trip(runs))


@application.command()
def phase_seconds(runs: Runs = RUNS) -> None:
    """Compare microfin.process.phase_seconds with prometheus_client's histograms."""
    _print(measure_phase_seconds(runs))


def _print(measuring: Coroutine[Any, Any, dict[str, Any]]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(msgspec.json.encode(uvloop.run(measuring)).decode())


if __name__ == "__main__":
    application()
