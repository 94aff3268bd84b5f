"""The Makefile: values reach the commands as they were given, and `make clean` removes what is configured."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import ROOT
from tools.warehouses.commands import Warehouse

Make = Callable[..., tuple[int, str, str]]


def run_make(
    folder: Path, warehouse: Warehouse, *arguments: str, stdin: int = subprocess.DEVNULL
) -> "subprocess.CompletedProcess[str]":
    """In another folder than the Makefile's, with the settings of the warehouse."""
    ready = [
        word for name in ("", "-all", "-analysts") for word in ("-o", f".venv/.ready{name}")
    ]  # nothing is installed
    command = ["make", "--file", str(ROOT / "Makefile"), *ready, f"BIN={Path(sys.executable).parent}", *arguments]
    inherited = {
        name: value for name, value in warehouse.environment.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    environment = {**inherited, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=stdin, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A day of a few messages."""
    warehouse = Warehouse(tmp_path_factory.mktemp("landed"))
    warehouse.simulate(1, 20)
    warehouse.land()
    return warehouse


@pytest.fixture
def warehouse(tmp_path: Path, landed: Warehouse) -> Warehouse:
    """Somewhere else than by default."""
    there = landed.copy_to(tmp_path / "there").folder
    events = (there / "warehouse.duckdb").rename(there / "events.db")
    return Warehouse(there, {"WAREHOUSE_PATH": str(events)})


@pytest.fixture
def make(tmp_path: Path, warehouse: Warehouse) -> Make:
    """Runs `make` in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()

    def make(*arguments: str) -> tuple[int, str, str]:
        done = run_make(folder, warehouse, *arguments)
        return done.returncode, done.stdout, done.stderr

    return make


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "variable", "value", "before"),
    [
        ("ingest", "SEED", "1; touch pwned", "--seed"),
        ("ingest", "DAYS", "$(shell touch pwned)", "--days"),
        ("ingest", "EVENTS_PER_DAY", "it's", "--events-per-day"),
        ("build", "VARS", "{session_gap_seconds: it's}", "--vars"),
        ("build", "VARS", "{session_gap_seconds: a`touch pwned`}", "--vars"),
        ("query", "FORMAT", "it's", "--format"),
        ("query-check", "Q", "it's", "check"),
        ("serve", "PORT", "it's", "--port"),
        ("dashboard", "DASHBOARD_PORT", "`touch pwned`", "--port"),
        ("backup", "FOLDER", "it's; touch pwned", "backup"),
        ("restore", "FOLDER", "$(touch pwned)", "restore"),
        ("brokers", "KAFKA_PORT", "it's", "--kafka-port"),
        ("brokers", "PUBSUB_PORT", "1;touch pwned", "--pubsub-port"),
        ("brokers", "REGISTRY_PORT", "$(touch pwned)", "--registry-port"),
    ],
)
def test_a_value_reaches_the_command_and_no_shell(
    tmp_path: Path, target: str, variable: str, value: str, before: str
) -> None:
    """Python is replaced by a script that prints its arguments: the value follows its option."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 2\n")
    python.chmod(0o700)
    done = run_make(tmp_path, Warehouse(tmp_path), target, f"{variable}={value}", f"BIN={python.parent}")
    assert done.returncode == 2
    printed = done.stdout.splitlines()
    assert printed[printed.index(value) - 1] == before
    assert not [*tmp_path.rglob("pwned")]


@pytest.mark.parametrize("variable", ["QUERY", "q", "DAY"])
def test_an_unknown_variable_is_an_error(tmp_path: Path, variable: str) -> None:
    done = run_make(tmp_path, Warehouse(tmp_path), "--dry-run", "query", f"{variable}=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"there is no variable {variable}: `make` lists" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("setting", ["WAREHOUSE_PATH=x", "TOPICS={}", "UMASK=027", "PYTHON=python3.11"])
def test_a_setting_is_no_unknown_variable(tmp_path: Path, setting: str) -> None:
    assert run_make(tmp_path, Warehouse(tmp_path), "--dry-run", "build", setting, "SELECT=x").returncode == 0


@pytest.fixture(scope="module")
def brands(shop: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A published shop with two brands whose names a shell would not take."""
    copy = shop.copy_to(tmp_path_factory.mktemp("brands") / "shop")
    published = Warehouse(copy.folder / "warehouse.duckdb.published" / "current")
    for function, brand in (("min", "o''neill"), ("max", "sun & sea")):
        published.change(
            f"update analytics.fct_events set brand = '{brand}'"
            f" where event_key = (select {function}(event_key) from analytics.fct_events)"
        )
    return copy


@pytest.mark.parametrize(
    ("arguments", "brand"),
    [
        ("brand=o'neill limit=5", "o'neill"),
        ('limit=5 brand="o\'neill"', "o'neill"),
        ("brand='sun & sea' limit=5", "sun & sea"),
    ],
)
def test_arguments_of_a_query_are_split_into_words(
    brands: Warehouse, tmp_path: Path, arguments: str, brand: str
) -> None:
    done = run_make(tmp_path, brands, "query", "Q=recent_events", f"ARGS={arguments}", "FORMAT=json")
    assert [row["brand"] for row in json.loads(done.stdout)["data"]] == [brand], done.stderr


# -- clean ------------------------------------------------------------------------------------------------------------


def test_clean_removes_what_is_configured_once_it_is_told_to(make: Make, warehouse: Warehouse, tmp_path: Path) -> None:
    here = tmp_path / "here"
    for name in ("warehouse.duckdb", "warehouse.duckdb.wal", "other.published"):
        (here / name).write_text("mine")
    (here / "spool").mkdir()
    events = warehouse.folder / "events.db"
    (warehouse.folder / "events.db.published").mkdir()
    (warehouse.folder / "events.db.emit").touch()
    (warehouse.folder / "spool" / "mine").mkdir()

    code, out, err = make("clean")
    assert code == 2
    assert "nothing was removed: there is no terminal to confirm on; run `make clean CONFIRM=1`" in err
    listed = set(map(Path, out.splitlines()))
    assert {events, events.with_name("events.db.published"), events.with_name("events.db.emit")} < listed
    assert warehouse.folder / "spool" / "users" in listed
    assert all(path.exists() and path.is_relative_to(warehouse.folder) for path in listed)

    code, out, err = make("clean", "CONFIRM=1")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "removed"
    assert [path.name for path in warehouse.folder.rglob("*")] == ["spool", "mine"]
    assert sorted(path.name for path in here.iterdir()) == [
        "other.published",
        "spool",
        "warehouse.duckdb",
        "warehouse.duckdb.wal",
    ]
    assert make("clean") == (0, "nothing to remove\n", "")


@pytest.mark.parametrize("answer", ["n", "y"])
def test_clean_asks_on_a_terminal(warehouse: Warehouse, tmp_path: Path, answer: str) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = run_make(tmp_path, warehouse, "clean", stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "Remove all of these? [y/N]" in done.stdout
    assert (warehouse.folder / "events.db").exists() == (answer == "n")


def test_clean_removes_nothing_where_the_warehouse_is_something_else(warehouse: Warehouse, make: Make) -> None:
    path = warehouse.folder / "events.db"
    path.write_text("event_time,event_type\n")
    code, out, err = make("clean", "CONFIRM=1")
    assert (code, out) == (2, "")
    assert f"error: nothing was removed: {path} is not a DuckDB file; see WAREHOUSE_PATH" in err
    assert path.exists()
    assert (warehouse.folder / "spool" / "users").exists()


# -- packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requirements", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.stem)
def test_what_is_required_is_locked_with_hashes(requirements: Path) -> None:
    lines = [line for line in requirements.read_text().splitlines() if line and line[0] not in "#-"]
    locked = (ROOT / "locked" / requirements.name).read_text()
    for line in lines:
        package = re.sub(r"\[.*\]| ;.*", "", line)  # what an extra brings in is locked too
        assert re.search(rf"^{re.escape(package)}\b.*\n +--hash=sha256:", locked, re.MULTILINE), (
            f"{line}: run `make lock`"
        )
