"""The command line: `python -m ingest COMMAND`."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.command_line import VERBOSE, finish
from common.errors import ContractError, UnavailableError, UserError
from common.settings import load_settings
from common.streams import STREAMS, named
from common.web import configure_logs, printable, serve_metrics
from engines.factory import engine_for
from engines.warehouse import utc_now
from ingest.simulator.faults import Faults
from ingest.sources import Source, open_sources

app = typer.Typer(
    help="Produce, land and inspect the messages of the event warehouse. Settings come from the environment or .env.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
stream_app = typer.Typer(help="Write the contract of a stream from a sample, and check messages against it.")
app.add_typer(stream_app, name="stream")
output = Console(width=None if sys.stdout.isatty() else 120)  # a pipe is no 80 columns wide
errors = Console(stderr=True)
FAULTS = Faults()

MetricsPortOption = Annotated[
    int | None,
    typer.Option("--metrics-port", metavar="PORT", min=1, max=65535, help="Serve Prometheus metrics on this port."),
]
try:
    STREAM_NAMES = ", ".join(STREAMS)
except ContractError as contract_error:  # all commands need the contracts
    sys.stderr.write(f"error: {contract_error}\n")
    raise SystemExit(2) from None
StreamOption = Annotated[
    list[str] | None, typer.Option("--stream", metavar="NAME", help=f"One of {STREAM_NAMES}; repeat for more.")
]


@app.callback()
def configure(
    verbose: Annotated[bool, typer.Option(VERBOSE, help="Print debug logs, and tracebacks of errors.")] = False,
) -> None:
    configure_logs(logging.DEBUG if verbose else logging.INFO)


@app.command()
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
    stop = _stop_signal() if follow else None
    bars: list[Callable[[int], None]] = []
    with ExitStack() as opened:

        def on_open(sources: list[Source]) -> None:
            if not bars:
                total = None if follow or not errors.is_terminal else _waiting(sources)
                bars.append(opened.enter_context(_progress("landing", total)))

        def on_progress(rows: int) -> None:
            bars[0](rows)

        sink = engine.warehouse(follow=follow)
        report = land_streams(
            settings, streams, sink, follow=follow, stop=stop, on_open=on_open, on_progress=on_progress
        )
    output.print(f"landed {_messages(report.rows)}")
    if report.problems and not follow:
        raise UserError("; ".join(report.problems))


@app.command()
def status(stream: StreamOption = None) -> None:
    """Print landed and waiting messages, lag, newest landed_at (UTC) and dead letters of each stream.

    The lag is the age of the oldest waiting message. Dead letters are those of the last build.
    """
    settings = load_settings()
    sink = engine_for(settings).warehouse()
    streams = settings.selected(stream)
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
    table = Table("stream", "source", box=None)
    for column in ("landed", "waiting", "lag", "newest landed_at", "dead letters"):
        table.add_column(column, justify="right")
    for one in streams:
        known = landed[one.name]
        table.add_row(
            one.name,
            settings.transport(one),
            _count(known.landed),
            _count(waiting[one.name]),
            _lag(waiting[one.name], oldest[one.name], now),
            "-" if known.newest_landed_at is None else f"{known.newest_landed_at:%Y-%m-%d %H:%M:%S}",
            _count(known.dead_letters),
        )
    output.print(table)
    if problems:
        raise UserError("; ".join(problems))


def _rate(help_text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=0.0, max=1.0, help=help_text, rich_help_panel="Faults (rates)")
    return option


@app.command()
def simulate(
    days: Annotated[
        int | None, typer.Option(min=0, help="Days to produce.", show_default="7 in the first run, then 1")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shop; the same seed gives the same bytes.")] = 1,
    events_per_day: Annotated[
        int, typer.Option(min=1, help="Events per day, averaged over a week, before faults and returns.")
    ] = 20_000,
    start: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="First day of the shop.", show_default="2026-01-01")
    ] = datetime(2026, 1, 1),  # noqa: DTZ001  typer parses dates without a zone
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
    """Produce the next days of a simulated shop, with the faults of real life."""
    from ingest.producers import RoutingProducer
    from ingest.simulator import simulate as simulate_days
    from ingest.simulator import simulated_days

    settings = load_settings()
    if unless_broker and (settings.has_kafka or settings.pubsub_project):
        output.print("a broker is configured: nothing simulated")
        return
    days = (1 if simulated_days(settings) else 7) if days is None else days
    if not days:
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
    with _progress("simulating days", days) as advance, RoutingProducer(settings) as producer:
        report = simulate_days(
            settings,
            producer,
            days=days,
            seed=seed,
            events_per_day=events_per_day,
            start=start.date(),
            faults=faults,
            on_progress=lambda day, messages: advance(1),
        )
    until = "" if days == 1 else f" to {report.last_day}"
    output.print(f"produced {_messages(report.total)} of {report.first_day}{until}")


@app.command()
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
        typer.Option(min=0.001, help="Multiple of real time, by the times of the events.", show_default="no pause"),
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
            f"replay produces JSON, and messages of {stream} are {target.format}: use the application that writes them"
        )
    try:
        from ingest.producers import RoutingProducer
        from ingest.replay import Replay

        with _progress("checking", None):
            checked = Replay(settings, files, target, renames=rename or [], force=force)
    except KeyboardInterrupt:
        output.print("interrupted: nothing produced")
        raise typer.Exit(130) from None
    stop = _stop_signal()
    with _progress("replaying", None) as advance, RoutingProducer(settings) as producer:
        published = checked.publish(producer, speed=speed, stop=stop, on_progress=advance)
    if not published and not stop.is_set():
        raise UserError(f"{', '.join(files)}: there is no message, so nothing was produced")
    unreadable = f"; {checked.unreadable:,} unreadable, see dead_letters after the build" if checked.unreadable else ""
    output.print(f"{'interrupted: ' if stop.is_set() else ''}produced {_messages(published)} to {stream}{unreadable}")
    if stop.is_set():
        raise typer.Exit(130)


SampleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sample",
        metavar="FILE",
        help="Files, folders and globs in the formats of `replay --help`; - is standard input.",
    ),
]
MoreFiles = Annotated[
    list[str] | None, typer.Argument(metavar="[FILE]...", help="More sample files.", show_default=False)
]
StreamName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the stream.")]


@stream_app.command("add")
def stream_add(
    name: StreamName,
    more: MoreFiles = None,
    sample: SampleOption = None,
    from_topic: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC",
            help="Read the sample from this Kafka topic, or from the spool's log of this name if Kafka is not "
            "configured. Offsets are not committed.",
        ),
    ] = None,
    transport: Annotated[
        Literal["kafka", "pubsub"] | None,
        typer.Option(help="Transport of the stream.", show_default="pubsub if only Pub/Sub is configured, else kafka"),
    ] = None,
    entity: Annotated[
        bool,
        typer.Option("--entity", help="The messages are versions of entities such as customers, not events."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing contract.")] = False,
) -> None:
    """Write streams/NAME.yml, the contract of a new stream, from a sample of its messages.

    Fields, types, required and personal fields, id and time are inferred from up to 5,000 messages.

    Comments mark guesses: check them, then run `stream check`.

    Examples:

    python -m ingest stream add signups --sample signups.ndjson

    python -m ingest stream add orders --sample 'export/2024-*.csv.gz' --transport pubsub

    python -m ingest stream add customers --from-topic crm.customers --entity
    """
    from ingest.samples import read_files, read_topic
    from ingest.scaffold import add_stream, new_file, shown_paths

    files = [*(sample or []), *(more or [])]
    if bool(files) == (from_topic is not None):
        what = (
            "give either --sample or --from-topic" if files else "give a sample: --sample FILE, or --from-topic TOPIC"
        )
        raise UserError(what)
    new_file(name, force=force)  # before the sample is read
    settings = load_settings()
    chosen = transport or ("pubsub" if settings.pubsub_project and not settings.has_kafka else "kafka")
    with _progress("reading the sample", None):
        found = read_topic(settings, from_topic, chosen) if from_topic is not None else read_files(files)
        written = add_stream(name, found, transport=chosen, topic=from_topic, is_entity=entity, force=force)
    first = "" if found.is_all else "the first "
    line = f"{written.fields:,} fields, {written.guesses:,} guesses, from {first}{_messages(found.read)}"
    output.print(f"wrote streams/{name}.yml: {line}", highlight=False, soft_wrap=True)
    if written.left_out:
        output.print(f"left out: {shown_paths(written.left_out)}", highlight=False, markup=False, soft_wrap=True)


@stream_app.command("check")
def stream_check(name: StreamName, more: MoreFiles = None, sample: SampleOption = None) -> None:
    """Report how many messages of a sample the stream accepts, why it rejects the others, and which fields they have
    that the contract does not list.

    Up to 1,000,000 messages go through the staging model in a temporary warehouse. Nothing is produced or landed.

    It takes about six seconds, twice as long the first time.

    Exit code 1 if a message is rejected, 2 if the sample or the contract cannot be read.

    Examples:

    python -m ingest stream check signups --sample signups.ndjson

    python -m ingest stream check orders --sample export/ 'archive/*.json.gz'
    """
    from ingest.check import check_sample

    [target] = named([name])
    if not (files := [*(sample or []), *(more or [])]):
        raise UserError("give a sample: --sample FILE")
    with _progress("checking", None):
        verdict = check_sample(load_settings(), files, target)
    copies = f" ({verdict.copies:,} of them copies of others)" if verdict.copies else ""
    rejected = verdict.messages - verdict.accepted
    first = "" if verdict.is_all else "the first "
    output.print(f"{first}{_messages(verdict.messages)}: {verdict.accepted:,} accepted{copies}, {rejected:,} rejected")
    if verdict.rejections:
        table = Table("reason", box=None)
        table.add_column("messages", justify="right")
        table.add_column("first", overflow="fold")
        table.add_column("value", overflow="fold")
        for one in verdict.rejections:
            table.add_row(*map(printable, (one.reason, f"{one.messages:,}", one.place, one.detail)))
        output.print(table)
    if verdict.unlisted:
        table = Table("not in the contract", box=None)
        table.add_column("messages", justify="right")
        table.add_column("type")
        table.add_column("example", overflow="fold")
        for field in verdict.unlisted:
            table.add_row(*map(printable, (field.path, f"{field.messages:,}", field.type, field.example)))
        output.print(table)
    if verdict.rejections:
        raise typer.Exit(1)


@stream_app.command("promote")
def stream_promote(
    name: StreamName,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path of the field in the body, such as props.ref.")],
    kind: Annotated[
        Literal["string", "id", "integer", "amount", "boolean", "timestamp", "json"] | None,
        typer.Option("--type", help="Type of the field.", show_default="one that accepts every value seen so far"),
    ] = None,
) -> None:
    """Add a field of the messages to the contract of their stream.

    The field is appended to streams/NAME.yml. Comments of the file stay.

    A field that looks personal gets `personal: drop`.

    Messages that are already staged get its value when you run the command that is printed.

    Example:

    python -m ingest stream promote signups props.ref
    """
    from ingest.scaffold import promote_field

    seen = None
    with suppress(UnavailableError):  # another process holds the warehouse
        seen = engine_for(load_settings()).warehouse().unlisted_fields(name) if name in STREAMS else None
    field = promote_field(name, path, kind, seen=seen)
    line = f"added {field.name}, of type {field.type}, to streams/{name}.yml"
    if field.personal:
        line += f" with personal: drop, because of {field.personal}; review it"
    line += "; to fill it for messages that are already staged, run"
    output.print(line, highlight=False, soft_wrap=True)
    output.print(f"make build SELECT=stg_{name}+ FULL_REFRESH=1", highlight=False)


@app.command()
def emit(
    from_start: Annotated[
        bool,
        typer.Option("--from-start", help="Send every result again, for example after a full refresh with other vars."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many results would be sent, and send nothing.")
    ] = False,
) -> None:
    """Produce the time spent on each page, new and corrected results of fct_page_views, to Kafka."""
    from ingest.emit import count_due
    from ingest.emit import emit as emit_results

    settings = load_settings()
    sink = engine_for(settings).warehouse()
    due = count_due(settings, sink, from_start=from_start) if dry_run or errors.is_terminal else None
    if dry_run:
        output.print(f"would emit {due:,} result{'' if due == 1 else 's'} to {settings.emit_topic}")
        return
    with _progress("emitting", due) as advance:
        emitted = emit_results(settings, sink, from_start=from_start, on_progress=advance)
    output.print(f"emitted {emitted:,} result{'' if emitted == 1 else 's'} to {settings.emit_topic}")


@app.command()
def provision(
    stream: StreamOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be created, and create nothing.")
    ] = False,
    ack_deadline: Annotated[
        int, typer.Option(min=10, max=600, metavar="SECONDS", help="Seconds until Pub/Sub redelivers a message.")
    ] = 60,
    ordering: Annotated[
        bool, typer.Option("--ordering", help="Deliver the messages of one ordering key in order (Pub/Sub).")
    ] = False,
    exactly_once: Annotated[
        bool,
        typer.Option(
            "--exactly-once",
            help="Never redeliver acknowledged messages (Pub/Sub). Landing does not need it.",
        ),
    ] = False,
    dead_letter_attempts: Annotated[
        int | None,
        typer.Option(
            min=5,
            max=100,
            metavar="N",
            help="Move a message to <topic>-dead-letter after N deliveries (Pub/Sub). Not recommended: every message "
            "can be landed, a broken one as a row of dead_letters. So attempts only run out while nothing lands "
            "messages, and then good messages would leave the subscription.",
            show_default="never",
        ),
    ] = None,
    push_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="URL to which Pub/Sub pushes; {stream} in it is replaced by the stream. With PUSH_AUDIENCE and "
            "PUSH_SERVICE_ACCOUNT each push carries a signed token.",
            show_default="pulled",
        ),
    ] = None,
) -> None:
    """Create the missing topics, subscriptions and raw tables of the configured streams. Safe to repeat.

    What exists is not changed; a subscription that differs from the options is reported.
    """
    from ingest.provision import SubscriptionOptions
    from ingest.provision import provision as provision_all

    settings = load_settings()
    options = SubscriptionOptions(ack_deadline, ordering, exactly_once, dead_letter_attempts, push_endpoint)
    lines = provision_all(settings, settings.selected(stream), dry_run, options)
    sink = engine_for(settings).warehouse()
    lines += [f"{'would create' if dry_run else 'created'} table {table}" for table in sink.missing_tables()]
    if not dry_run:
        sink.create_tables()
    for line in lines or ["nothing to create"]:
        output.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
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
    # Fail now for a wrong path; what may pass, such as another process that holds the file, each commit waits for.
    with suppress(UnavailableError):
        engine_for(settings.model_copy(update={"lock_timeout_seconds": 0})).warehouse().create_tables()
    serve_metrics(settings, metrics_port)
    landed = serve(settings, engine.warehouse(), host, port)
    output.print(f"landed {_messages(landed)}")


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Required without a terminal.")] = False,
) -> None:
    """List the warehouse, its published copies, the spool and dbt's files, ask, and remove them."""
    from ingest.clean import found, remove

    settings = load_settings()
    paths = found(settings)
    if not paths:
        output.print("nothing to remove")
        return
    for path in paths:
        output.print(str(path), highlight=False, markup=False, soft_wrap=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(
                "nothing was removed: there is no terminal to confirm on; run `make clean CONFIRM=1` (or give --yes)"
            )
        if not typer.confirm("Remove all of these?"):
            return
    remove(paths, settings)
    output.print("removed")


@contextmanager
def _progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; yields what advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda amount: progress.advance(task, amount)


def _stop_signal() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM, for landing to end after its commit. The second ends at once; it too
    loses nothing."""
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def _waiting(sources: list[Source]) -> int | None:
    """Messages that wait in all sources; None when one of them cannot tell."""
    total = 0
    for source in sources:
        for count in source.waiting().values():
            if count is None:
                return None
            total += count
    return total


def _messages(number: int) -> str:
    return f"{number:,} message{'' if number == 1 else 's'}"


def _lag(waiting: int | None, oldest: datetime | None, now: datetime) -> str:
    if waiting == 0:
        return "0 s"
    return "-" if oldest is None else f"{max(0, int((now - oldest).total_seconds())):,} s"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def main() -> None:
    """Run the command line."""
    # --verbose may follow the command, too
    arguments = sorted(sys.argv[1:], key=VERBOSE.__ne__)
    finish(lambda: app(arguments or ["--help"], standalone_mode=False))
