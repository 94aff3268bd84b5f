"""`event-warehouse`: one command line for the commands of ingest, dbt_project and serve."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

import event_warehouse
import ingest.cli
import serve.__main__
import upkeep.__main__
from event_warehouse import COMMANDS
from tests.command_line import run_main
from tools import ROOT
from tools.warehouses.commands import Warehouse

KNOWN = {name: command for commands in COMMANDS.values() for name, command in commands.items()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_main(event_warehouse.main, [*arguments], {})


def typer_commands(app: typer.Typer) -> set[str]:
    callbacks: list[tuple[str | None, Callable[..., object] | None]] = [
        (one.name, one.callback) for one in app.registered_commands if not one.hidden
    ]
    named = {name or callback.__name__ for name, callback in callbacks if callback is not None}
    return named | {str(group.name) for group in app.registered_groups}


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert listed == set(KNOWN)
    assert run().stdout == done.stdout


def test_every_command_of_ingest_and_serve_has_a_name_here() -> None:
    assert typer_commands(ingest.cli.app) <= set(KNOWN)
    assert typer_commands(serve.__main__.app) - {"check"} | {"query-check"} <= set(KNOWN)
    assert typer_commands(upkeep.__main__.app) <= set(KNOWN)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_code_of_a_command_exists(name: str) -> None:
    assert callable(getattr(import_module(KNOWN[name].module), KNOWN[name].function))


@pytest.mark.parametrize(
    "name",
    [name for name in sorted(KNOWN) if KNOWN[name].module in ("ingest.cli", "serve.__main__", "upkeep.__main__")],
)
def test_the_help_of_a_command_has_its_name_in_the_usage_line(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"event-warehouse {name} " in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["lnad"], "error: there is no command 'lnad': `event-warehouse --help` lists them\n"),
        (["land", "--folow"], "error: No such option: --folow (Possible options: --follow)\n"),
        (["query", "--formt", "csv"], "error: No such option: --formt (Possible options: --format)\n"),
        (
            ["query", "--format", "xml"],
            "error: Invalid value for '--format': 'xml' is not one of 'table', 'csv', 'json'.\n",
        ),
        (
            ["check-mart", "--worlds", "none"],
            "error: Invalid value for '--worlds': Input should be a valid integer, "
            "unable to parse string as an integer\n",
        ),
        (["build", "--vars", "3"], "error: vars must be a mapping, such as VARS='{session_gap_seconds: 1800}'\n"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], error: str) -> None:
    """In a process of its own, as the commands of dbt end it."""
    done = subprocess.run(
        [sys.executable, "-m", "event_warehouse", *arguments],
        cwd=ROOT,
        env=Warehouse(tmp_path).environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", error)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    for module in ("ingest.sources.kafka", "ingest.brokers.kafka"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    environment = {**Warehouse(tmp_path).environment, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    done = run_main(event_warehouse.main, ["land"], environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: confluent_kafka is not installed: run `make setup-all`")


# -- packages ---------------------------------------------------------------------------------------------------------


def imported_at_start(command: str) -> set[str]:
    """The top-level packages that are imported by a command's modules alone."""
    code = f"import sys, {command}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "modules",
    [
        "ingest.cli, ingest.landing, ingest.sources.spool, ingest.producers.spool",
        "dbt_project.__main__, publishing.publish",
        "serve.__main__, serve.endpoints, serve.dashboard.routes, serve.check",
    ],
)
def test_the_embedded_default_imports_no_client_of_a_broker_or_a_cloud(modules: str) -> None:
    found = imported_at_start(modules)
    assert not found & {
        "google.auth",
        "google.api_core",
        "google.cloud.bigquery",
        "grpc",
        "confluent_kafka",
        "fastavro",
        "requests_oauthlib",
    }


def imported_anywhere(package: str) -> set[str]:
    """The top-level packages that the modules of a package import, also those imported when first needed."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
    return found


def test_a_build_imports_no_server() -> None:
    server = {"fastapi", "starlette", "uvicorn", "serve"}
    publishing = [f"publishing.{path.stem}" for path in (ROOT / "publishing").glob("[!_]*.py")]
    assert not imported_at_start(", ".join(["dbt_project.__main__", *publishing])) & server
    assert not (imported_anywhere("dbt_project") | imported_anywhere("publishing")) & server


def test_ingest_imports_no_build_and_only_its_command_line_imports_the_tools_for_contracts() -> None:
    assert not imported_anywhere("ingest") & {"dbt_project", "dbt", "publishing", "serve"}
    users = [
        path
        for path in (ROOT / "ingest").rglob("*.py")
        if re.search(r"^\s*(from|import) contracts\b", path.read_text(), re.MULTILINE)
    ]
    assert users == [ROOT / "ingest" / "cli.py"]


@pytest.mark.parametrize(("package", "above"), [("common", "engines"), ("engines", "ingest")])
def test_imports_go_one_way(package: str, above: str) -> None:
    """From `common` through `engines` to the parts that use them."""
    users = {"ingest", "publishing", "contracts", "serve", "dbt_project"}
    assert not imported_anywhere(package) & (users | {above})


def test_the_pins_are_within_the_ranges_of_pyproject() -> None:
    pinned = {}
    for name in ("requirements-docs.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if not line.startswith("#"):
                pin = Requirement(line)
                pinned[pin.name] = str(pin.specifier).removeprefix("==")
    project = PROJECT["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    listed += [one for group in PROJECT["dependency-groups"].values() for one in group]
    for line in listed:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name]), f"{line}: run `make lock`"
