"""The commands for the contract of a stream: `stream add`, `stream check` and `stream promote`; and `recover`, which
judges dead letters by it again."""

from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from common.console import count, output, progress
from common.errors import UnavailableError, UserError
from common.logs import printable
from common.settings import load_settings
from common.streams import STREAMS, named
from engines.factory import engine_for

stream_app = typer.Typer(help="Write the contract of a stream from a sample, and check messages against it.")

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
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
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
    from contracts.add import add_stream
    from contracts.files import new_file
    from contracts.samples import read_files, read_topic
    from contracts.text import shown_paths

    files = [*(sample or []), *(more or [])]
    if bool(files) == (from_topic is not None):
        what = (
            "give either --sample or --from-topic" if files else "give a sample: --sample FILE, or --from-topic TOPIC"
        )
        raise UserError(what)
    new_file(name, force=force)  # fails before the sample is read
    settings = load_settings()
    chosen = transport or ("pubsub" if settings.pubsub_project and not settings.has_kafka else "kafka")
    with progress("reading the sample", None):
        found = read_topic(settings, from_topic, chosen) if from_topic is not None else read_files(files)
        written = add_stream(name, found, transport=chosen, topic=from_topic, is_entity=entity, force=force)
    first = "" if found.is_all else "the first "
    line = f"{written.fields:,} fields, {written.guesses:,} guesses, from {first}{count(found.read)}"
    output.print(f"wrote streams/{name}.yml: {line}", highlight=False, soft_wrap=True)
    if written.left_out:
        output.print(f"left out: {shown_paths(written.left_out)}", highlight=False, markup=False, soft_wrap=True)


@stream_app.command("check")
def stream_check(name: StreamName, more: MoreFiles = None, sample: SampleOption = None) -> None:
    """Report how many messages of a sample the stream accepts, why it rejects the others, and which fields they have
    that the contract does not list.

    Up to 1,000,000 messages go through the staging model in a temporary warehouse. Nothing is produced or landed.

    It takes about six seconds on an idle machine, twice as long the first time.

    Exit code 1 if a message is rejected, 2 if the sample or the contract cannot be read.

    Examples:

    python -m ingest stream check signups --sample signups.ndjson

    python -m ingest stream check orders --sample export/ 'archive/*.json.gz'
    """
    from contracts.check import check_sample

    [target] = named([name])
    if not (files := [*(sample or []), *(more or [])]):
        raise UserError("give a sample: --sample FILE")
    with progress("checking", None):
        verdict = check_sample(load_settings(), files, target)
    copies = f" ({verdict.copies:,} of them copies of others)" if verdict.copies else ""
    rejected = verdict.messages - verdict.accepted
    first = "" if verdict.is_all else "the first "
    output.print(f"{first}{count(verdict.messages)}: {verdict.accepted:,} accepted{copies}, {rejected:,} rejected")
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
    from contracts.promote import promote_field

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


def recover(
    stream: Annotated[str, typer.Option("--stream", metavar="NAME", help="Stream of the dead letters.")],
    reason: Annotated[
        str | None, typer.Option(metavar="REASON", help="Only those with this reason, such as invalid:price.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Only those that landed at this time or later, UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Only those that landed before this time, UTC.")
    ] = None,
    patch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.sql",
            help="File with one SQL expression of DuckDB over `payload`, the body as text: its result is the new body."
            " Where it is null or fails, the message stays rejected.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be recovered, and land nothing.")
    ] = False,
    vars_: Annotated[
        str | None, typer.Option("--vars", metavar="YAML", help="Vars of dbt, as your builds have them.")
    ] = None,
) -> None:
    """Judge the dead letters of a stream again by its present contract, and land those that pass.

    The originals stay as they landed. The next build has the events on their own days.

    Safe to repeat and to kill: no message is recovered twice. Dead letters are those of the last build.

    Examples:

    python -m ingest recover --stream orders --reason invalid:price --dry-run

    python -m ingest recover --stream orders --since 2026-01-05 --patch decimal_comma.sql
    """
    from contracts.patch import Patch
    from contracts.recover import recover_dead_letters
    from dbt_project.__main__ import check_vars
    from engines.recovery import OpenDeadLetters

    [target] = named([stream])
    if since is not None and until is not None and since >= until:
        raise UserError(f"--until must be later than --since: got {until} and {since}")
    if vars_ is not None:
        check_vars(["--vars", vars_])
    settings = load_settings()
    letters = OpenDeadLetters(stream, reason, since, until)
    with ExitStack() as opened:
        expression = opened.enter_context(closing(Patch(patch))) if patch is not None else None
        advance = opened.enter_context(progress("recovering", None))
        outcomes = recover_dead_letters(
            settings,
            engine_for(settings).warehouse(),
            target,
            letters,
            expression,
            vars_,
            dry_run=dry_run,
            on_progress=advance,
        )
    if not outcomes:
        output.print(f"nothing to recover: the last build left no such dead letter of {stream}", soft_wrap=True)
        return
    table = Table("reason", box=None)
    table.add_column("dead letters", justify="right")
    table.add_column("pass" if dry_run else "recovered", justify="right")
    table.add_column("still rejected", overflow="fold")
    for one in outcomes:
        still = ", ".join(f"{messages:,} {now}" for now, messages in one.rejected.items())
        table.add_row(*map(printable, (one.reason, f"{one.messages:,}", f"{one.recovered:,}", still or "-")))
    output.print(table)
    recovered, messages = sum(one.recovered for one in outcomes), sum(one.messages for one in outcomes)
    line = f"{recovered:,} of {count(messages)} of {stream}"
    output.print(
        f"would recover {line}; nothing was changed"
        if dry_run
        else f"recovered {line}; `make build` adds them to the marts",
        highlight=False,
        soft_wrap=True,
    )
