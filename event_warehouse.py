"""The console script `event-warehouse`: the commands of all parts under one name."""

import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

from common import interrupts

ROOT = Path(__file__).parent


class Command(NamedTuple):
    """One command and the command line that runs it."""

    module: str
    function: str
    arguments: tuple[str, ...]
    """Arguments that precede those of the user."""
    help: str


def _ingest(name: str, text: str) -> Command:
    return Command("ingest.cli", "main", (name,), text)


def _serve(name: str, text: str) -> Command:
    return Command("serve.__main__", "main", (name,), text)


def _upkeep(name: str, text: str) -> Command:
    return Command("upkeep.__main__", "main", (name,), text)


def _dbt(name: str, text: str) -> Command:
    return Command("dbt_project.__main__", "main", (name,), text)


COMMANDS: dict[str, dict[str, Command]] = {
    "Land": {
        "simulate": _ingest("simulate", "produce the next days of a simulated shop"),
        "replay": _ingest("replay", "produce files of events to a stream"),
        "land": _ingest("land", "land all waiting messages; --follow continues"),
        "push": _ingest("push", "land what Pub/Sub pushes over HTTP"),
        "status": _ingest("status", "landed and waiting messages and dead letters of each stream"),
        "stream": _ingest("stream", "add, check and promote: write and check the contract of a stream"),
        "recover": _ingest("recover", "judge dead letters again, and land those that pass"),
        "provision": _ingest("provision", "create topics, subscriptions and raw tables"),
        "emit": _ingest("emit", "produce the time spent on each page to Kafka"),
        "clean": _ingest("clean", "remove the warehouse, the spool and dbt's files, after asking"),
    },
    "Live": {"live": Command("live.__main__", "main", (), "land, build, publish and serve, within seconds")},
    "Build": {
        "build": _dbt("build", "build and test the models, and publish them"),
        "test": _dbt("test", "run dbt's tests"),
        "docs": _dbt("docs", "generate: write dbt's documentation"),
        "dbt": Command("dbt_project.__main__", "main", (), "any other command of dbt, such as `dbt ls`"),
        "check-mart": Command("dbt_project.check_mart", "run_and_leave", (), "check that a mart is exact"),
    },
    "Keep": {
        "backup": _upkeep("backup", "write a consistent backup to a folder"),
        "restore": _upkeep("restore", "fill an empty warehouse from a backup, also on BigQuery"),
        "compact": _upkeep("compact", "rewrite the DuckDB file without unused space"),
    },
    "Ask": {
        "query": _serve("query", "print the answer to a query; without a name, list the queries"),
        "query-check": _serve("query-check", "test queries without a build"),
        "metric": _serve("metric", "print metrics by any dimension"),
        "serve": Command("serve.__main__", "main", (), "answer queries over HTTP"),
        "dashboard": _serve("dashboard", "serve the dashboard"),
        "report": _serve("report", "write the dashboard to a file"),
    },
}
"""The commands by group and name."""


def _print_help() -> None:
    lines = ["usage: event-warehouse COMMAND [OPTIONS]", ""]
    for group, commands in COMMANDS.items():
        lines += [f"{group}:", *(f"  {name:<12} {command.help}" for name, command in commands.items()), ""]
    lines += ["`event-warehouse COMMAND --help` describes a command. Settings come from the environment or .env."]
    sys.stdout.write("\n".join(lines) + "\n")


def _run(name: str, command: Command, given: list[str]) -> None:
    """Run the command as its own command line would."""
    # for the usage line, which must show `event-warehouse NAME` whichever module parses it
    program = "event-warehouse" if name in command.arguments else f"event-warehouse {name}"
    sys.argv = [program, *command.arguments, *given]
    interrupts.end_at_once()  # so that Ctrl-C also ends the imports
    main = getattr(import_module(command.module), command.function)
    interrupts.run(main)


def _reject(message: str) -> NoReturn:
    from common.command_line import finish
    from common.errors import UserError

    def command() -> NoReturn:
        raise UserError(message)

    finish(command)


def main() -> None:
    """Run the command line. The exit codes are those of the commands, and 2 for an unknown command."""
    name, *given = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        _print_help()
        return
    if name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"event-warehouse {version('event-warehouse')}\n")
        return
    known = {name: command for commands in COMMANDS.values() for name, command in commands.items()}
    if name not in known:
        _reject(f"there is no command {name!r}: `event-warehouse --help` lists them")
    if not (ROOT / "streams").is_dir():
        _reject("the files of the project are missing: install it from a checkout by `pip install --editable .`")
    _run(name, known[name], given)


if __name__ == "__main__":
    main()
