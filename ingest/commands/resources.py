"""The commands that create and remove what landing needs: `provision` and `clean`."""

import sys
from typing import Annotated

import typer

from common.console import output
from common.errors import UserError
from common.settings import load_settings
from engines.factory import engine_for
from ingest.commands.options import StreamOption


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


def clean(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for confirmation. Required without a terminal.")
    ] = False,
) -> None:
    """List the warehouse, its published copies, the spool and dbt's files, ask for confirmation, and remove them."""
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
