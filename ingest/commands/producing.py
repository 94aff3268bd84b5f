"""The commands that produce messages: `simulate`, `replay` and `emit`."""

from datetime import datetime
from typing import Annotated

import typer

from common import interrupts
from common.console import count, errors, output, progress
from common.errors import UserError
from common.settings import load_settings
from common.streams import named
from engines.factory import engine_for
from ingest.commands.options import STREAM_NAMES
from ingest.simulator.faults import Faults

FAULTS = Faults()


def _rate(help_text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0.0, max=1.0, help=help_text, rich_help_panel="Faults (rates)")
    return option


def simulate(
    days: Annotated[
        int | None, typer.Option(min=0, help="Days to produce.", show_default="7 in the first run, then 1")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shop; the same seed gives the same bytes.")] = 1,
    events_per_day: Annotated[
        int | None,
        typer.Option(
            min=1, help="Events per day, averaged over a week, before faults and returns.", show_default="20,000"
        ),
    ] = None,
    start: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="First day of the shop.", show_default="2026-01-01")
    ] = datetime(2026, 1, 1),  # noqa: DTZ001  typer parses dates without a zone
    rate: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Instead of days, produce this many events per second as they happen, until Ctrl-C or SIGTERM. A spool"
            " grows without bound.",
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="With --rate: end after this many seconds.")] = None,
    unless_broker: Annotated[
        bool, typer.Option("--unless-broker", help="Do nothing if Kafka or Pub/Sub is configured.")
    ] = False,
    duplicate_message: Annotated[float, _rate("The same message is sent twice.")] = FAULTS.duplicate_message,
    duplicate_event: Annotated[float, _rate("The same event is sent in a second message.")] = FAULTS.duplicate_event,
    late: Annotated[float, _rate("The event is sent minutes to days after it happened.")] = FAULTS.late,
    out_of_order: Annotated[float, _rate("The message comes after later messages in the log.")] = FAULTS.out_of_order,
    malformed_json: Annotated[float, _rate("The JSON is truncated.")] = FAULTS.malformed_json,
    invalid_utf8: Annotated[float, _rate("A byte is not valid UTF-8.")] = FAULTS.invalid_utf8,
    missing_field: Annotated[float, _rate("A required field is missing.")] = FAULTS.missing_field,
    test_event: Annotated[float, _rate("The page view is marked as a test.")] = FAULTS.test_event,
    literal_null: Annotated[float, _rate("A value of the store event is 'null' or ''.")] = FAULTS.literal_null,
    unlisted_field: Annotated[float, _rate("A field is not listed in the contract.")] = FAULTS.unlisted_field,
) -> None:
    """Produce the next days of a simulated shop, with realistic faults such as late and duplicate messages.

    With --rate the shop is live: its events happen now.
    """
    from ingest.producers import RoutingProducer
    from ingest.simulator import simulate as simulate_days
    from ingest.simulator import simulated_days

    settings = load_settings()
    if unless_broker and (settings.has_kafka or settings.pubsub_project):
        output.print("nothing was simulated, because a broker is configured")
        return
    faults = Faults(
        duplicate_message=duplicate_message,
        duplicate_event=duplicate_event,
        late=late,
        out_of_order=out_of_order,
        malformed_json=malformed_json,
        invalid_utf8=invalid_utf8,
        missing_field=missing_field,
        test_event=test_event,
        literal_null=literal_null,
        unlisted_field=unlisted_field,
    )
    if rate is not None:
        if days is not None or events_per_day is not None:
            raise UserError("--rate replaces --days and --events-per-day; leave them out")
        from ingest.simulator.feed import feed

        stop = interrupts.stop_event()
        with progress("feeding", None) as advance, RoutingProducer(settings) as producer:
            produced = feed(
                settings,
                producer,
                rate=rate,
                stop=stop,
                seconds=seconds,
                seed=seed,
                start=start.date(),
                faults=faults,
                on_progress=advance,
            )
        output.print(f"produced {count(produced)}")
        return
    if seconds is not None:
        raise UserError("--seconds needs --rate")
    days = (1 if simulated_days(settings) else 7) if days is None else days
    if not days:
        return
    with progress("simulating days", days) as advance, RoutingProducer(settings) as producer:
        report = simulate_days(
            settings,
            producer,
            days=days,
            seed=seed,
            events_per_day=20_000 if events_per_day is None else events_per_day,
            start=start.date(),
            faults=faults,
            on_progress=lambda day, messages: advance(1),
        )
    until = "" if days == 1 else f" to {report.last_day}"
    output.print(f"produced {count(report.total)} of {report.first_day}{until}")


def replay(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Files, folders and globs, read in the order of their names; - is standard input."
        ),
    ],
    stream: Annotated[str, typer.Option("--stream", metavar="NAME", help=f"One of {STREAM_NAMES}.")],
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="OURS=THEIRS", help="Read the field OURS from the column THEIRS; repeat for more columns."
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Speed as a multiple of real time, by the times of the events.", show_default="no pause"
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Produce files that do not match the stream, and rows older than Kafka's retention."
        ),
    ] = False,
) -> None:
    """Produce the rows of files to a stream. All files are checked before the first row is sent.

    .csv, .tsv: a header with the field names of the stream; the delimiter (comma, semicolon, tab, |) is detected.

    .ndjson, .jsonl, .json: one body per line, one array of bodies, or consecutive documents, sent byte for byte.

    .parquet: one body per row.

    Text may be gzip-compressed (events.csv.gz) or in UTF-16. Standard input may be in any of these formats.

    Examples:

    python -m ingest replay events.csv --stream ecom_events

    python -m ingest replay export/ 'archive/2024-*.json.gz' --stream page_views

    python -m ingest replay shop.csv --stream users --map user_id=CustomerID --map updated_at=Modified

    zstdcat clicks.ndjson.zst | python -m ingest replay - --stream clicks
    """
    settings = load_settings()
    [target] = named([stream])
    if target.format != "json":
        raise UserError(
            f"replay can only produce JSON, but the messages of {stream} are {target.format}: use the application that"
            " writes them"
        )
    try:
        from ingest.producers import RoutingProducer
        from ingest.replay import Replay

        with progress("checking", None):
            checked = Replay(settings, files, target, renames=rename or [], force=force)
    except KeyboardInterrupt:
        output.print("interrupted: nothing produced")
        raise typer.Exit(130) from None
    stop = interrupts.stop_event()
    with progress("replaying", None) as advance, RoutingProducer(settings) as producer:
        published = checked.publish(producer, speed=speed, stop=stop, on_progress=advance)
    if not published and not stop.is_set():
        raise UserError(f"{', '.join(files)}: no messages found, so nothing was produced")
    unreadable = f"; {checked.unreadable:,} unreadable, see dead_letters after the build" if checked.unreadable else ""
    output.print(f"{'interrupted: ' if stop.is_set() else ''}produced {count(published)} to {stream}{unreadable}")
    if stop.is_set():
        raise typer.Exit(130)


def emit(
    from_start: Annotated[
        bool,
        typer.Option("--from-start", help="Send every result again, for example after a full refresh with other vars."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many results would be sent, and send nothing.")
    ] = False,
) -> None:
    """Produce to Kafka the time spent on each page: the new and corrected results of fct_page_views."""
    from ingest.emit import count_due
    from ingest.emit import emit as emit_results

    settings = load_settings()
    sink = engine_for(settings).warehouse()
    due = count_due(settings, sink, from_start=from_start) if dry_run or errors.is_terminal else None
    if dry_run:
        output.print(f"would emit {due:,} result{'' if due == 1 else 's'} to {settings.emit_topic}")
        return
    with progress("emitting", due) as advance:
        emitted = emit_results(settings, sink, from_start=from_start, on_progress=advance)
    output.print(f"emitted {emitted:,} result{'' if emitted == 1 else 's'} to {settings.emit_topic}")
