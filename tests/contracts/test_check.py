"""`stream check` reports what the staging model of dbt makes of a sample, and leaves nothing behind."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.settings import Settings
from common.streams import STREAMS
from contracts import check
from contracts.check import Rejection, Unlisted, check_sample
from ingest import cli
from tests.checkout import ROOT, copy_project
from tests.command_line import run_main

CLICK = {"click_id": "c1", "user_id": 1, "product_id": 2, "price": "1.50", "datetime_occured": "2026-01-05T10:00:00Z"}
LINES = [
    json.dumps(CLICK),
    json.dumps(CLICK),
    "",
    '{"click_id": "c2"',
    json.dumps({**CLICK, "click_id": "c3", "user_id": None}),
    json.dumps({**CLICK, "click_id": "c4", "datetime_occured": "yesterday"}),
    json.dumps({**CLICK, "click_id": "c5", "price": "cheap"}),
    json.dumps({**CLICK, "click_id": "c6", "user_id": "undefined"}),
    json.dumps({**CLICK, "click_id": "c7"}),
]

CUSTOMERS = """
description: Customers.
transport: kafka
key: customer_id
kind: entity
time: [updated_at]
fields:
  - {name: customer_id, type: id, required: true, description: Id.}
  - {name: updated_at, type: timestamp, required: true, description: When.}
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where dbt keeps what it parsed from one test to the next."""
    return tmp_path_factory.mktemp("target")


@pytest.fixture
def environment(parsed: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WAREHOUSE", "BUILD_PREFIX", "DATASET", "DBT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DBT_TARGET_PATH", str(parsed))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("check/*") if path.name.startswith(("sample", "spool")))


@pytest.mark.usefixtures("environment")
def test_the_reasons_are_those_of_staging(settings: Settings, parsed: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text("\n".join(LINES[:5]))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(f"[{','.join(LINES[5:])}]".encode()))
    verdict = check_sample(settings, [str(tmp_path / "a.ndjson"), str(tmp_path / "b.*")], STREAMS["clicks"])
    first, second = tmp_path / "a.ndjson", tmp_path / "b.json.gz"
    assert (verdict.messages, verdict.accepted, verdict.copies, verdict.is_all) == (8, 3, 1, True)
    assert verdict.rejections == [
        Rejection("missing:user_id", 2, f"{first}, row 4", ""),
        Rejection("invalid:price", 1, f"{second}, row 2", "cheap"),
        Rejection("invalid:timestamp", 1, f"{second}, row 1", "yesterday"),
        Rejection("malformed_json", 1, f"{first}, row 3", "not a JSON object"),
    ]
    assert left(parsed) == []
    assert not settings.spool_path.exists()
    assert not settings.warehouse_path.exists()


@pytest.mark.usefixtures("environment")
def test_fields_that_the_contract_does_not_list_are_reported(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a long path of the file would be on two lines
    bodies = [{**CLICK, "ref": "ad-1"}, {**CLICK, "ref": "ad-2", "props": {"depth": 12}}, {"ref": 5}]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, bodies)))
    verdict = check_sample(settings, [str(tmp_path / "a.ndjson")], STREAMS["clicks"])
    assert verdict.unlisted == [
        Unlisted("ref", "string", 2, "aa-9"),
        Unlisted("props.depth", "number", 1, "99"),
        Unlisted("ref", "number", 1, "9"),
    ]
    done = run_main(cli.main, ["stream", "check", "clicks", "--sample", "a.ndjson"], dict(os.environ))
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    start = lines.index(["not", "in", "the", "contract", "messages", "type", "example"])
    assert lines[start : start + 2] == [
        ["not", "in", "the", "contract", "messages", "type", "example"],
        ["ref", "2", "string", "aa-9"],
    ]


@pytest.mark.usefixtures("environment")
def test_the_project_stays_as_it_is(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated = ROOT / "dbt_project" / "macros" / "contracts.sql"
    before = generated.read_text(), generated.stat().st_mtime_ns
    [field] = [one for one in STREAMS["clicks"].fields if one.name == "price"]
    fields = [one.model_copy(update={"required": True}) if one == field else one for one in STREAMS["clicks"].fields]
    stricter = STREAMS["clicks"].model_copy(update={"fields": tuple(fields)})
    monkeypatch.setitem(STREAMS, "clicks", stricter)
    (tmp_path / "a.ndjson").write_text(json.dumps({**CLICK, "price": None}))
    verdict = check_sample(settings, [str(tmp_path / "a.ndjson")], stricter)
    assert [one.reason for one in verdict.rejections] == ["missing:price"]
    assert (generated.read_text(), generated.stat().st_mtime_ns) == before


@pytest.mark.usefixtures("environment")
def test_a_model_that_is_written_by_hand_judges_too(settings: Settings, tmp_path: Path) -> None:
    page = {"ga_event_dtm": "2026-01-05T10:00:00Z", "session_id": "s", "page_title": "x"}
    bodies = [page, {**page, "event_name": "scroll"}, {**page, "test_event": True}]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, bodies)))
    verdict = check_sample(settings, [str(tmp_path / "a.ndjson")], STREAMS["page_views"])
    assert [one.reason for one in verdict.rejections] == ["invalid:event_name"]
    version = {"user_id": 1, "updated_at": "2026-01-05T10:00:00Z"}
    bodies = [version, version, {**version, "user_id": 2}, {"user_id": 3}]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, bodies)))
    verdict = check_sample(settings, [str(tmp_path / "a.ndjson")], STREAMS["users"])
    assert (verdict.accepted, verdict.copies) == (3, 1)
    assert [(one.reason, one.place) for one in verdict.rejections] == [
        ("missing:updated_at", f"{tmp_path / 'a.ndjson'}, row 4")
    ]


@pytest.mark.usefixtures("environment")
def test_a_large_sample_is_checked_in_part_and_may_lack_a_field(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CHECKED_MESSAGES", 1_500)
    lines = [json.dumps({"click_id": f"c{number}", "user_id": 1}) for number in range(5_000)]
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    verdict = check_sample(settings, [str(tmp_path / "a.ndjson")], STREAMS["clicks"])
    assert (verdict.messages, verdict.accepted, verdict.is_all) == (2_000, 0, False)
    assert [(one.reason, one.messages) for one in verdict.rejections] == [("missing:product_id", 2_000)]


@pytest.mark.usefixtures("environment")
def test_the_command_prints_the_report_and_its_exit_code_is_for_ci(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text(
        "click_id,user_id,product_id,datetime_occured\nc1,1,2,2026-01-05\nc2,1,2,\x1b[31m\n"
    )
    done = run_main(cli.main, ["stream", "check", "clicks", "--sample", "bad.csv"], dict(os.environ))
    assert (done.returncode, done.stderr) == (1, "")
    report, _, row = done.stdout.splitlines()
    assert report == "2 messages: 1 accepted, 1 rejected"
    assert row.split("  ")[0].strip() == "invalid:timestamp"
    assert "bad.csv, row 2" in row
    assert r"\x1b[31m" in row
    (tmp_path / "good.csv").write_text("click_id,user_id,product_id,datetime_occured\nc1,1,2,2026-01-05\n")
    done = run_main(cli.main, ["stream", "check", "clicks", "--sample", "good.csv"], dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "1 message: 1 accepted, 0 rejected\n")


def clone(folder: Path) -> None:
    copy_project(folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_contract_that_comes_and_goes_is_no_obstacle(tmp_path: Path) -> None:
    clone(tmp_path)
    (tmp_path / "a.ndjson").write_text(LINES[0])
    contract = tmp_path / "streams" / "customers.yml"
    contract.write_text(CUSTOMERS)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout

    def check_mart(name: str) -> None:
        assert run("dbt_project.check_mart", name, "--worlds", "1").startswith(f"{name} equals a full refresh")

    check_mart("stg_customers")  # whose model is written now
    check_click = "ingest", "stream", "check", "clicks", "--sample", "a.ndjson"
    assert run(*check_click) == "1 message: 1 accepted, 0 rejected\n"
    contract.unlink()
    check_mart("stg_clicks")
    assert run(*check_click) == "1 message: 1 accepted, 0 rejected\n"


@pytest.mark.slow
def test_a_stream_is_added_checked_and_promoted_in_a_clone(tmp_path: Path) -> None:
    clone(tmp_path)
    usual = {
        **{
            "user": {"id": 1},
            "at": 1_767_607_200,
            "price": "1.5",
            "a": "31.12.2025 23:59",
            "b": "2026-01-05 10:00 UTC",
        },
        **{"c": "2026-01-05T10:00:00.123456789+0200", "d_ts": 1_767_607_200_123, "e": "2026-01-05 10:00:00 +0200"},
        **{"f": "TRUE", "g": [{"h": None}], "i": {"it's": 1}, "j": 1e3, "k": -(2**63) + 1, "l": "null", "order": "\\N"},
        **{"date": "20260105", "m/n": "'", "o p": {"@q": "{{ x }}"}, "event": "it's", "email": "a@b.de", "r": "x" * 9},
    }
    events = [{**usual, "signup_id": number, "user_id": f"{number}@b.de"} for number in range(3)]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, events)))
    (tmp_path / "b.ndjson").write_text(
        '{"signup_id": 4, "at": 1767607200, "user": {"id": ""}, "plan": "a", "event": ""}'
    )

    def run(*arguments: str, expect: int) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ingest", "stream", *arguments],
            cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (expect, ""), done
        return done.stdout

    run("add", "signups", "--sample", "a.ndjson", expect=0)
    assert run("check", "signups", "--sample", "a.ndjson", expect=0) == "3 messages: 3 accepted, 0 rejected\n"
    assert "missing:user.id " in run("check", "signups", "--sample", "b.ndjson", expect=1)
    run("promote", "signups", "plan", expect=0)
    assert run("check", "signups", "--sample", "a.ndjson", expect=0) == "3 messages: 3 accepted, 0 rejected\n"
