"""The commands that land messages and show what was landed: `land`, `push` and `status`."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from common import interrupts
from common.console import count, errors, output, progress
from common.errors import UnavailableError, UserError
from common.live_status import LiveStatus, StreamCounts, read_live_status
from common.settings import Settings, load_settings
from common.streams import Stream
from common.telemetry import serve_metrics
from engines.factory import engine_for
from engines.warehouse import StreamStatus, utc_now
from ingest.commands.options import MetricsPortOption, StreamOption
from ingest.sources import Source, open_sources


def land(
    stream: StreamOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Continue with messages that arrive, until Ctrl-C or SIGTERM.")
    ] = False,
    metrics_port: MetricsPortOption = None,
) -> None:
    """Land every waiting message in the warehouse, exactly once."""
    from ingest.landing import land_streams

    settings = load_settings()
    engine = engine_for(settings)
    if not follow and engine.load_seconds is not None and "landing_max_seconds" not in settings.model_fields_set:
        settings.landing_max_seconds = engine.load_seconds
    streams = settings.selected(stream)
    serve_metrics(settings, metrics_port)
    stop = interrupts.stop_event() if follow else None
    bars: list[Callable[[int], None]] = []
    with ExitStack() as opened:

        def on_open(sources: list[Source]) -> None:
            if not bars:
                total = None if follow or not errors.is_terminal else _waiting(sources)
                bars.append(opened.enter_context(progress("landing", total)))

        def on_progress(rows: int) -> None:
            bars[0](rows)

        sink = engine.warehouse(follow=follow)
        report = land_streams(
            settings, streams, sink, follow=follow, stop=stop, on_open=on_open, on_progress=on_progress
        )
    output.print(f"landed {count(report.rows)}")
    if report.problems and not follow:
        raise UserError("; ".join(report.problems))


def push(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free port and logs it.")],
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; any but loopback needs PUSH_AUDIENCE and PUSH_SERVICE_ACCOUNT."),
    ] = "127.0.0.1",
    metrics_port: MetricsPortOption = None,
) -> None:
    """Land the messages that Pub/Sub pushes to http://HOST:PORT/push, until Ctrl-C or SIGTERM.

    A push gets 204 once it is committed. GET /healthz is 200 while the server can commit.

    One URL serves all streams: a push names its subscription, and SUBSCRIPTIONS maps it to a stream.

    With PUSH_AUDIENCE and PUSH_SERVICE_ACCOUNT only that account may push.
    """
    from ingest.push import serve

    settings = load_settings()
    engine = engine_for(settings)
    if not engine.accepts_pushes:
        raise UserError("push lands in DuckDB only: with WAREHOUSE=bigquery, run `land --follow`")
    # a wrong path fails here; if another process holds the file, each commit waits for it
    with suppress(UnavailableError):
        engine_for(settings.model_copy(update={"lock_timeout_seconds": 0})).warehouse().create_tables()
    serve_metrics(settings, metrics_port)
    landed = serve(settings, engine.warehouse(), host, port)
    output.print(f"landed {count(landed)}")


def status(stream: StreamOption = None) -> None:
    """Print landed and waiting messages, lag, newest landed_at (UTC) and dead letters of each stream.

    The lag is the age of the oldest waiting message. Dead letters are those of the last build. A last line says when it
    is time to compact the warehouse.
    """
    settings = load_settings()
    engine = engine_for(settings)
    streams = settings.selected(stream)
    live = read_live_status(engine.published_folder)
    if live and engine.is_copied:
        _print_live_status(settings, streams, live)
        return
    sink = engine.warehouse()
    landed = sink.status()
    waiting: dict[str, int | None] = {}
    oldest: dict[str, datetime | None] = {}
    problems: list[str] = []
    with open_sources(settings, streams, sink.positions) as sources:
        for source in sources:
            waiting |= source.waiting()
            oldest |= source.oldest_waiting()
            problems += source.problems
    now = utc_now()
    table = _status_table("waiting", "lag")
    for one in streams:
        lag = _lag(waiting[one.name], oldest[one.name], now)
        _add_status(table, settings, one, landed[one.name], _number(waiting[one.name]), lag)
    output.print(table)
    _print_advice(engine.compaction_advice())
    if problems:
        raise UserError("; ".join(problems))


def _print_live_status(settings: Settings, streams: list[Stream], live: LiveStatus) -> None:
    """Print what the live process last counted: it alone has the warehouse."""
    table = _status_table()
    for one in streams:
        if one.name in live.streams:
            _add_status(table, settings, one, live.streams[one.name])
    output.print(table)
    _print_advice(live.advice)
    output.print(
        f"`live` (PID {live.pid}) lands, builds and publishes; as of {live.updated_at:%Y-%m-%d %H:%M:%S}, version"
        f" {live.published or 'none'}: {live.dashboard}",
        highlight=False,
        soft_wrap=True,
    )
    if live.failure:
        raise UserError(f"nothing new is published: {live.failure}")


def _print_advice(advice: str | None) -> None:
    if advice:
        output.print(advice, highlight=False, markup=False, soft_wrap=True)


def _status_table(*more: str) -> Table:
    table = Table("stream", "source", box=None)
    for column in ("landed", *more, "newest landed_at", "dead letters"):
        table.add_column(column, justify="right")
    return table


def _add_status(
    table: Table, settings: Settings, stream: Stream, known: StreamStatus | StreamCounts, *more: str
) -> None:
    newest = known.newest_landed_at
    table.add_row(
        stream.name,
        settings.transport(stream),
        _number(known.landed),
        *more,
        "-" if newest is None else f"{newest:%Y-%m-%d %H:%M:%S}",
        _number(known.dead_letters),
    )


def _waiting(sources: list[Source]) -> int | None:
    """Count the messages that wait in all sources; None if one of them has no count."""
    total = 0
    for source in sources:
        for waiting in source.waiting().values():
            if waiting is None:
                return None
            total += waiting
    return total


def _lag(waiting: int | None, oldest: datetime | None, now: datetime) -> str:
    if waiting == 0:
        return "0 s"
    return "-" if oldest is None else f"{max(0, int((now - oldest).total_seconds())):,} s"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
