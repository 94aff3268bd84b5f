"""`python -m live`: lands, builds, publishes and serves until Ctrl-C or SIGTERM."""

from common import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # before the other imports

import logging
import sys
from typing import Annotated, Any

import typer
import yaml

from common.command_line import VERBOSE, finish
from common.errors import UserError
from common.logs import configure_logs
from common.settings import load_settings
from common.telemetry import serve_metrics
from dbt_project.__main__ import check_vars

RATE = 50.0
"""Events per second of the simulator, where no broker is configured."""
LANDING_SECONDS = 0.3
"""LANDING_MAX_SECONDS unless it is set: the default is for builds that come minutes later."""
SWITCH_SECONDS = 0.0005
"""After this time a thread that runs Python lets another one run. With Python's 5 ms, each of the hundred statements of
a publication would wait as long for the threads that build."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def live(
    rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Events per second of the simulated shop; 0 turns it off.",
            show_default=f"{RATE:g} without a broker, else 0",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the endpoints; 0 takes a free one.")] = 8000,
    dashboard_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the dashboard; 0 takes a free one.")
    ] = 8001,
    push_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port for pushes of Pub/Sub.", show_default="none")
    ] = None,
    vars_: Annotated[str, typer.Option("--vars", help="dbt's vars, such as '{session_gap_seconds: 1800}'.")] = "{}",
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="PORT", min=1, max=65535, help="Serve Prometheus metrics on this port."),
    ] = None,
) -> None:
    """Land, build, publish and serve all streams, so that an event is in every answer within seconds.

    Without a broker, a simulated shop produces events. Ctrl-C or SIGTERM finishes the current commit; a kill at any
    time loses nothing.

    Queries: http://127.0.0.1:PORT/docs; dashboard: http://127.0.0.1:DASHBOARD_PORT/?refresh=10
    """
    from live.process import Live, Options

    configure_logs(logging.INFO)
    settings = load_settings()
    check_vars(["--vars", vars_])
    variables: dict[str, Any] = yaml.safe_load(vars_)
    if settings.build_prefix is not None:
        raise UserError("BUILD_PREFIX: `live` publishes its builds, and one with a prefix is not published; unset it")
    if push_port is not None and settings.warehouse == "bigquery":
        raise UserError("--push-port: pushes land in DuckDB only")
    if "landing_max_seconds" not in settings.model_fields_set and settings.warehouse == "duckdb":
        settings.landing_max_seconds = LANDING_SECONDS
    has_broker = settings.has_kafka or settings.pubsub_project is not None
    if rate is None:
        rate = 0.0 if has_broker else RATE
    serve_metrics(settings, metrics_port)
    sys.setswitchinterval(SWITCH_SECONDS)
    options = Options(port, dashboard_port, push_port, rate, variables)
    Live(settings, options, interrupts.stop_event()).run()


def main() -> None:
    """Run the command line."""
    arguments = [argument for argument in sys.argv[1:] if argument != VERBOSE]
    finish(lambda: app(arguments, standalone_mode=False))


if __name__ == "__main__":
    interrupts.run(main)
