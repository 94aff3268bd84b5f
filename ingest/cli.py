"""The command line: `python -m ingest COMMAND`. It puts together the commands of ingest and of contracts."""

import logging
import sys
from typing import Annotated

import typer

from common.command_line import VERBOSE, finish
from common.logs import configure_logs
from common.streams import STREAMS
from contracts.commands import recover, stream_app
from ingest.commands import landing, producing, resources

app = typer.Typer(
    help="Produce, land and inspect the messages of the event warehouse. Settings come from the environment or .env.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def configure(
    verbose: Annotated[bool, typer.Option(VERBOSE, help="Print debug logs, and tracebacks of errors.")] = False,
) -> None:
    configure_logs(logging.DEBUG if verbose else logging.INFO)


for command in (
    landing.land,
    landing.status,
    producing.simulate,
    producing.replay,
    producing.emit,
    recover,
    resources.provision,
    landing.push,
    resources.clean,
):
    app.command()(command)
app.add_typer(stream_app, name="stream")


def main() -> None:
    """Run the command line."""
    # --verbose may also follow the command
    arguments = sorted(sys.argv[1:], key=VERBOSE.__ne__)

    def run() -> object:
        list(STREAMS)  # every command needs the contracts, so it fails here if one has a mistake, even with --help
        return app(arguments or ["--help"], standalone_mode=False)

    finish(run)
