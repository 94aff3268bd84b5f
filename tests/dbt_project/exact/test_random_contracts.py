"""Streams with random contracts, built run by run, are as the specification reads the contracts."""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from common.streams import STREAMS, Stream, read_contracts
from dbt_project.contracts import write_contracts
from dbt_project.exactness.message import Message
from specification import Landed, Settings, marts
from specification.contracts import read_contracts as read_by_specification
from specification.rows import Mart
from specification.staging import staged
from tests.checkout import copy_project
from tests.dbt_project.exact.contracts import COMMITS, Contract, Draw
from tools.warehouses.in_process import Difference, Project, Warehouse, compare

FIRST_LANDING = datetime(2026, 2, 1, 10)
SETS = int(os.environ.get("EXACT_CONTRACT_SETS", "10"))
KINDS = [("event", None), ("entity", None), ("event", "cloudevents"), ("entity", "debezium"), ("event", None)]
MARTS = ["fct_events", "dead_letters", "field_drift", "landing_reconciliation"]


def test_a_few_contracts(tmp_path: Path, seed: int) -> None:
    check(tmp_path, Draw(seed), streams=5, messages=100, runs=1)


@pytest.mark.exact
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(SETS))
def test_many_contracts(tmp_path: Path, seed: int, number: int) -> None:
    check(tmp_path, Draw(seed + number), streams=10, messages=300, runs=3)


def check(
    folder: Path,
    draw: Draw,
    streams: int,
    messages: int,
    runs: int,
    project_of: Callable[[Path, Path], Project] = Project,
    comparable: Callable[[Mart], Mart] = lambda rows: rows,
) -> None:
    """Build random streams run by run, and compare their staging and marts with the specification. With several runs,
    also compare a full refresh.

    Args:
        project_of: opens the project in a folder, with a working folder.
        comparable: removes what differs between engines from rows.
    """
    given = {f"stream_{place}": draw.contract(*KINDS[place % len(KINDS)]) for place in range(streams)}
    drawn = [message for name in given for message in draw.messages(name, given[name], messages, runs)]
    known = copy_with_streams(folder, given)
    with patch.dict(STREAMS, known):
        project = project_of(folder / "dbt_project", folder)
        (folder / "warehouse").mkdir()
        warehouse = project.warehouse(folder / "warehouse", Settings())
        marts = [*MARTS, *(f"dim_{name}" for name in given if given[name]["kind"] == "entity")]
        select = ["--select", *(f"+{mart}" for mart in marts)]

        def build(when: str, *options: str) -> None:
            warehouse.build(*select, *options)
            if found := list(differences(warehouse, folder / "streams", list(given), comparable)):
                pytest.fail(f"EXACT_SEED={draw.seed} {when}: {described(found, given, drawn)}", pytrace=False)

        for run in range(runs):
            for commit in range(COMMITS):
                landing_time = FIRST_LANDING + timedelta(hours=run * COMMITS + commit)
                warehouse.land([one for one in drawn if (one.run, one.commit) == (run, commit)], landing_time)
            build(f"after run {run}")
        if runs > 1:
            build("after a full refresh", "--full-refresh")


CLOUDEVENTS = {
    "description": "Signups.",
    "transport": "kafka",
    "envelope": "cloudevents",
    "kind": "event",
    "event_type": "signup",
    "id": ["id"],
    "time": ["time"],
    "fields": [
        {"name": "id", "description": "Id."},
        {"name": "time", "type": "timestamp", "required": True, "description": "When."},
        {"name": "plan", "path": "data.plan", "description": "Plan."},
    ],
}


def test_a_cloudevent_in_binary_mode_may_have_no_data(tmp_path: Path) -> None:
    check_cloudevents_without_data(tmp_path)


def check_cloudevents_without_data(
    folder: Path,
    project_of: Callable[[Path, Path], Project] = Project,
    comparable: Callable[[Mart], Mart] = lambda rows: rows,
) -> None:
    payloads = {"with data": b'{"plan": "team"}', "empty": b"", "none": None, "broken": b"{"}
    landed = []
    for prefix in ("ce_", "ce-"):
        for name, payload in payloads.items():
            attributes = {"specversion": "1.0", "id": f"{prefix}{name}", "time": "2026-01-31T10:00:00Z"}
            attributes = {f"{prefix}{attribute}": value for attribute, value in attributes.items()}
            landed.append(Message(0, 0, "signups", f"{prefix}{name}", None, payload, attributes=json.dumps(attributes)))
    landed.append(Message(0, 0, "signups", "no CloudEvent", None, b"", attributes='{"id": "x"}'))
    known = copy_with_streams(folder, {"signups": CLOUDEVENTS})
    with patch.dict(STREAMS, known):
        (folder / "warehouse").mkdir()
        warehouse = project_of(folder / "dbt_project", folder).warehouse(folder / "warehouse", Settings())
        warehouse.land(landed, FIRST_LANDING)
        warehouse.build("--select", *(f"+{mart}" for mart in MARTS))
        rows = {
            row["message_id"]: (row["event_id"], row["plan"], row["reject_reason"])
            for row in warehouse.rows("staging.stg_signups")
        }
        assert list(differences(warehouse, folder / "streams", ["signups"], comparable)) == []
    expected: dict[str, tuple[str, str | None, None]] = {}
    for prefix in ("ce_", "ce-"):
        expected[f"{prefix}with data"] = (f"{prefix}with data", "team", None)
        expected |= {f"{prefix}{name}": (f"{prefix}{name}", None, None) for name in ("empty", "none")}
    assert {id_: row for id_, row in rows.items() if row[2] is None} == expected
    assert {id_: row[2] for id_, row in rows.items() if row[2] is not None} == dict.fromkeys(
        ("ce_broken", "ce-broken", "no CloudEvent"), "malformed_json"
    )


def copy_with_streams(folder: Path, given: dict[str, Contract]) -> dict[str, Stream]:
    """Copy the project and add these streams to the copy; returns all its streams."""
    copy_project(folder, ("dbt_project", "snapshots", "analyses", "streams"))
    for name, contract in given.items():
        text = yaml.safe_dump(contract, sort_keys=False, allow_unicode=True)
        (folder / "streams" / f"{name}.yml").write_text(text)
    known = read_contracts(folder / "streams")
    write_contracts(folder / "dbt_project", known)
    return known


def differences(
    warehouse: Warehouse, contracts: Path, streams: Sequence[str], comparable: Callable[[Mart], Mart]
) -> Iterator[Difference]:
    """Differences in staging, and in the marts that depend only on contracts."""
    landed = [
        Landed(**{name: row[name] for name in Landed.__slots__})
        for stream in streams
        for row in warehouse.rows(f"raw.{stream}")
    ]
    read = read_by_specification(contracts)
    [key] = warehouse.rows("raw.pseudonym_key")
    secret = bytes(byte ^ 0x36 for byte in key["inner_pad"])
    for model, defined in staged(landed, Settings(), {name: read[name] for name in streams}, secret).items():
        yield from compare(model, [specified(row) for row in warehouse.rows(f"staging.{model}")], defined)
    defined_marts = marts(landed, Settings(), {}, read, secret)
    dimensions = [f"dim_{stream}" for stream in streams if read[stream].kind == "entity"]
    for mart in (*MARTS, *dimensions, *(f"{name}_history" for name in dimensions)):
        built = warehouse.rows(f"analytics.{mart}")
        yield from compare(mart, comparable(built), comparable(defined_marts[mart]))


def specified(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a staging row that the specification defines; of a rejected message, those about the rejection."""
    if row["reject_reason"] is None:
        return row
    of_message = ["stream", "message_id", "landed_at", "unlisted_fields"]
    return {name: row[name] for name in (*of_message, "reject_reason", "reject_detail", "rejected_payload")}


def described(found: list[Difference], given: dict[str, Contract], landed: list[Message]) -> str:
    """One example of each kind of difference, with its message, and the contracts."""
    sides: dict[tuple[str, Any], dict[str, dict[str, Any]]] = defaultdict(lambda: {"built": {}, "defined": {}})
    for difference in found:
        sides[difference.mart, difference.row.get("message_id")][difference.side] = difference.row
    examples: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (mart, message_id), rows in sides.items():
        built, defined = rows["built"], rows["defined"]
        names = [name for name in {**built, **defined} if built.get(name, ...) != defined.get(name, ...)]
        values = [f"  {name}: built {shown(built, name)}, defined {shown(defined, name)}" for name in names]
        messages = [f"  {repr(one)[:2000]}" for one in landed if one.message_id == message_id]
        examples[mart, *names].append("\n".join([f"{mart} {message_id}", *values, *messages]))
    streams = {row["stream"] for rows in sides.values() for row in rows.values() if row.get("stream") in given}
    contracts = [f"{name}.yml\n{yaml.safe_dump(given[name], sort_keys=False)}" for name in sorted(streams)]
    kinds = [f"{kind[0]}\n(one of {len(kind)})" for kind in examples.values()]
    return "\n".join([f"{len(found)} rows differ", *kinds, *contracts])


def shown(row: dict[str, Any], name: str) -> str:
    return repr(row[name])[:200] if name in row else "nothing"
