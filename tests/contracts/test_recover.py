"""`recover` lands dead letters again that pass now, each once, and changes nothing else."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow as pa
import pytest

from common.errors import UserError
from common.settings import Settings
from common.streams import STREAMS, Stream
from contracts.patch import Patch
from contracts.recover import NO_PAYLOAD, Outcome, recover_dead_letters
from engines.batch import BATCH_SCHEMA, Batch
from engines.duckdb.sink import DuckDBSink
from engines.recovery import OpenDeadLetters
from ingest import cli
from tests.command_line import run_main
from tools.warehouses.commands import Warehouse

LANDED = datetime(2026, 3, 1, 10)
CLICK = {"user_id": "u", "product_id": "p", "price": 1, "datetime_occured": "2026-01-05T10:00:00Z"}
PAYLOADS: list[bytes] = [
    json.dumps({**CLICK, "click_id": "good"}).encode(),
    json.dumps({**CLICK, "click_id": "comma", "price": "1,50", "datetime_occured": "2025-11-05T10:00:00Z"}).encode(),
    json.dumps({**CLICK, "click_id": "later", "price": "2,75"}).encode(),
    json.dumps({**CLICK, "click_id": "free", "price": "free"}).encode(),
    b'{"click_id": "cut"',
    json.dumps({**CLICK, "click_id": "nobody", "user_id": None}).encode(),
    b"\xff",
]
DECIMAL_COMMA = "json_merge_patch(payload, json_object('price', replace(payload ->> '$.price', ',', '.')))"


def messages() -> pa.Table:
    rows = [
        {
            "source": "kafka",
            "topic": "clicks",
            "partition": 0,
            "offset": offset,
            "message_id": f"clicks/0/{offset}",
            "key": b"k",
            "attributes": '{"trace": "\\u00e9"}',
            "published_at": None if offset == 2 else datetime(2026, 2, 1),
            "payload": payload,
        }
        for offset, payload in enumerate(PAYLOADS)
    ]
    return pa.Table.from_pylist(rows, BATCH_SCHEMA)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Messages of which six are dead letters since the last build."""
    warehouse = Warehouse(tmp_path_factory.mktemp("built"))
    sink = DuckDBSink(warehouse.path, clock=lambda: LANDED)
    sink.create_tables()
    sink.commit([Batch({"clicks": messages()}, {("clicks", 0): len(PAYLOADS)})])
    warehouse.run_models()
    return warehouse


@pytest.fixture
def warehouse(built: Warehouse, tmp_path: Path) -> Warehouse:
    return built.copy_to(tmp_path / "warehouse")


Run = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(warehouse: Warehouse, built: Warehouse) -> Run:
    """`python -m ingest recover` in this process. dbt keeps what it parsed from one test to the next."""

    def run(*arguments: str) -> "CompletedProcess[str]":
        environment = {**warehouse.environment, "DBT_TARGET_PATH": str(built.folder / "parsed")}
        return run_main(cli.main, ["recover", *arguments], environment)

    return run


@pytest.fixture
def in_process(warehouse: Warehouse, built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in warehouse.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DBT_TARGET_PATH", str(built.folder / "parsed"))
    return Settings(_env_file=None, warehouse_path=warehouse.path, spool_path=warehouse.folder / "spool")


@pytest.fixture
def patch(tmp_path: Path) -> str:
    file = tmp_path / "comma.sql"
    file.write_text(DECIMAL_COMMA)
    return str(file)


def with_fields(**changes: dict[str, Any]) -> Stream:
    """The contract of clicks with other values of keys of its fields."""
    clicks = STREAMS["clicks"]
    fields = tuple(field.model_copy(update=changes.get(field.name, {})) for field in clicks.fields)
    return clicks.model_copy(update={"fields": fields})


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def landed(warehouse: Warehouse) -> list[tuple[object, ...]]:
    return warehouse.query("select message_id from raw.clicks where source = 'recover' order by landed_at, message_id")


def recovered_ids(*offsets: int) -> list[tuple[object, ...]]:
    return [(f"recover/2026-03-01T10:00:00.000000/clicks/0/{offset}",) for offset in offsets]


def test_a_dry_run_prints_what_would_be_recovered_and_changes_nothing(
    run: Run, warehouse: Warehouse, patch: str
) -> None:
    before = warehouse.path.read_bytes()
    done = run("--stream", "clicks", "--patch", patch, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(done.stdout) == [
        ["reason", "dead", "letters", "pass", "still", "rejected"],
        ["invalid:price", "3", "2", "1", "invalid:price"],
        ["malformed_json", "2", "0", "2", *NO_PAYLOAD.split()],
        ["missing:user_id", "1", "0", "1", "missing:user_id"],
        ["would", "recover", "2", "of", "6", "messages", "of", "clicks;", "nothing", "was", "changed"],
    ]
    assert warehouse.path.read_bytes() == before


def test_what_passes_lands_again_and_every_figure_is_right(run: Run, warehouse: Warehouse, patch: str) -> None:
    done = run("--stream", "clicks", "--patch", patch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == ("recovered 2 of 6 messages of clicks; `make build` adds them to the marts")
    assert landed(warehouse) == recovered_ids(1, 2)
    names = 'stream, source, topic, "partition", "offset", key, published_at, payload'
    [first, second] = warehouse.query(f"select {names} from raw.clicks where source = 'recover' order by message_id")
    assert first[:7] == ("clicks", "recover", "clicks", None, None, b"k", datetime(2026, 2, 1))
    assert json.loads(first[7]) == {**json.loads(PAYLOADS[1]), "price": "1.50"}  # type: ignore[arg-type]
    assert second[6] == LANDED  # the broker did not say when it was published
    [(text,)] = warehouse.query("select attributes from raw.clicks where message_id like 'recover/%/0/1'")
    attributes = json.loads(str(text))
    origin = attributes["recovered_from"]
    assert attributes["trace"] == "é"
    assert origin["patch"].startswith("comma.sql ")
    assert {name: origin[name] for name in ("message_id", "landed_at", "reason")} == {
        "message_id": "clicks/0/1",
        "landed_at": "2026-03-01T10:00:00",
        "reason": "invalid:price",
    }

    warehouse.run_models()
    assert warehouse.query(
        "select event_id, event_date::varchar, price::varchar from analytics.fct_events order by 1"
    ) == [
        ("comma", "2025-11-05", "1.5000"),
        ("good", "2026-01-05", "1.0000"),
        ("later", "2026-01-05", "2.7500"),
    ]
    assert warehouse.query(
        "select message_id, recovered_at > landed_at, recovery_patch from analytics.dead_letters order by 1"
    ) == [
        ("clicks/0/1", True, origin["patch"]),
        ("clicks/0/2", True, origin["patch"]),
        *((f"clicks/0/{offset}", None, None) for offset in (3, 4, 5, 6)),
    ]
    counts = "landed, accepted, duplicates, rejected, recovered, is_balanced"
    assert warehouse.query(f"select {counts} from analytics.landing_reconciliation order by landed_date") == [
        (7, 1, 0, 6, 2, True),
        (2, 2, 0, 0, 0, True),
    ]
    [clicks] = [row for row in lines(warehouse.run("ingest", "status").stdout) if row[0] == "clicks"]
    assert (clicks[2], clicks[-1]) == ("9", "4")

    refreshed = warehouse.copy_to(warehouse.folder.with_name("refreshed"))
    refreshed.run_models("--full-refresh")
    assert warehouse.differences(refreshed) == {}


def test_repeating_it_lands_nothing_twice(run: Run, warehouse: Warehouse, patch: str) -> None:
    arguments = ("--stream", "clicks", "--patch", patch, "--reason", "invalid:price")
    assert "recovered 2 of 3 messages" in run(*arguments).stdout
    assert "recovered 0 of 1 message of" in run(*arguments).stdout  # before the next build, and after it
    warehouse.run_models()
    assert "recovered 0 of 1 message of" in run(*arguments).stdout
    assert landed(warehouse) == recovered_ids(1, 2)


def test_a_kill_between_two_commits_lands_the_rest_later(
    in_process: Settings, warehouse: Warehouse, patch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = in_process.model_copy(update={"landing_max_rows": 1})
    letters = OpenDeadLetters("clicks")
    land_again = DuckDBSink.land_again
    commits: list[int] = []

    def dying(sink: DuckDBSink, stream: str, rows: pa.Table) -> int:
        if commits:
            raise KeyboardInterrupt
        commits.append(rows.num_rows)
        return land_again(sink, stream, rows)

    with closing(Patch(Path(patch))) as expression:
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(DuckDBSink, "land_again", dying)
            recover_dead_letters(settings, DuckDBSink(warehouse.path), STREAMS["clicks"], letters, expression)
        assert commits == [1]
        assert landed(warehouse) == recovered_ids(1)
        again = recover_dead_letters(settings, DuckDBSink(warehouse.path), STREAMS["clicks"], letters, expression)
    assert sum(one.recovered for one in again) == 1
    assert landed(warehouse) == recovered_ids(1, 2)


def test_the_present_contract_judges_and_the_patch_must_not_make_it_worse(
    in_process: Settings, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STREAMS, "clicks", with_fields(price={"type": "string"}, user_id={"required": False}))
    sink, clicks = DuckDBSink(warehouse.path), STREAMS["clicks"]
    bad = tmp_path / "bad.sql"
    bad.write_text('json_merge_patch(payload, \'{"datetime_occured": "soon"}\')')
    with closing(Patch(bad)) as expression, pytest.raises(UserError) as raised:
        recover_dead_letters(in_process, sink, clicks, OpenDeadLetters("clicks"), expression)
    assert "nothing was recovered: with the patch bad.sql" in str(raised.value)
    assert "4 messages are rejected that pass without it, such as clicks/0/1 (invalid:timestamp)" in str(raised.value)
    assert landed(warehouse) == []

    found = recover_dead_letters(in_process, sink, clicks, OpenDeadLetters("clicks"))
    assert found == [
        Outcome("invalid:price", 3, 3, {}),
        Outcome("malformed_json", 2, 0, {"malformed_json": 2}),
        Outcome("missing:user_id", 1, 1, {}),
    ]
    assert landed(warehouse) == recovered_ids(1, 2, 3, 5)
    assert warehouse.query("select payload from raw.clicks where message_id like 'recover/%/0/3'") == [(PAYLOADS[3],)]


def test_only_the_dead_letters_that_were_asked_for_are_judged(run: Run, built: Warehouse, patch: str) -> None:
    def found(*arguments: str) -> str:
        return run("--stream", "clicks", "--patch", patch, "--dry-run", *arguments).stdout.splitlines()[-1]

    nothing = "nothing to recover: the last build left no such dead letter of clicks"
    assert found("--reason", "invalid:price").startswith("would recover 2 of 3 messages")
    assert found("--reason", "invalid:user_id") == nothing
    assert found("--since", "2026-03-01T10:00:00").startswith("would recover 2 of 6")
    assert found("--since", "2026-03-01T10:00:01") == nothing
    assert found("--until", "2026-03-01T10:00:00") == nothing
    assert found("--until", "2026-03-02").startswith("would recover 2 of 6")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--stream", "klicks"], "unknown stream 'klicks'; the streams are "),
        (["--stream", "clicks", "--since", "soon"], "Invalid value for '--since': "),
        (["--stream", "clicks", "--until", "2026-01-05T10:00:00Z"], "Invalid value for '--until': "),
        (
            ["--stream", "clicks", "--since", "2026-01-02", "--until", "2026-01-02"],
            "--until must be later than --since: got 2026-01-02 00:00:00 and 2026-01-02 00:00:00",
        ),
        (["--stream", "clicks", "--patch", "missing.sql"], "cannot read missing.sql: No such file or directory"),
        (["--stream", "clicks", "--vars", "3"], "vars must be a mapping"),
        ([], "Missing option '--stream'"),
    ],
)
def test_bad_input_is_an_error_in_one_line(run: Run, warehouse: Warehouse, arguments: list[str], error: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {error}")
    assert done.stderr.count("\n") == 1
    assert landed(warehouse) == []


def test_before_the_first_build_there_is_nothing_to_judge(run: Run, warehouse: Warehouse) -> None:
    error = "has no dead letters yet: run `make build` first"
    warehouse.path.unlink()
    assert error in run("--stream", "clicks").stderr
    DuckDBSink(warehouse.path, clock=lambda: LANDED + timedelta(days=1)).create_tables()
    done = run("--stream", "clicks")
    assert (done.returncode, error in done.stderr) == (2, True)
