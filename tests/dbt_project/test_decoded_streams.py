"""A stream in Avro, from the wire format to facts and dead letters, in a copy of the project that has its contract."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import pytest

from common.settings import Settings
from common.streams import Stream, read_contracts
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from tests.checkout import copy_project
from tools.brokers.local_registry import LocalRegistry

ROOT = Path(__file__).parents[2]
CONTRACT = """
description: People who signed up.
transport: kafka
format: avro
key: user_id
kind: event
id: [signup_id]
event_type: signup
time: [signed_up_at]
fields:
  - {name: signup_id, type: id, required: true, description: Id of the sign-up.}
  - {name: user_id, type: id, required: true, description: The person.}
  - {name: signed_up_at, required: true, description: When they signed up.}
  - {name: total_amount, path: paid, type: amount, description: What they paid.}
"""
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Signup",
    "fields": [
        {"name": "signup_id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "user_id", "type": ["null", "long"]},
        {"name": "signed_up_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ],
}
SIGNUP = "00000000-0000-0000-0000-00000000000"
MILLISECONDS = 1_767_600_000_123  # 2026-01-05 08:00


def written(schema_id: int, number: int, user_id: int | None) -> bytes:
    plain = {**SCHEMA, "fields": [{**field} for field in SCHEMA["fields"]]}
    plain["fields"][2]["type"] = "long"
    plain["fields"][3]["type"] = "bytes"
    stream = io.BytesIO()
    value = {"signup_id": f"{SIGNUP}{number}", "user_id": user_id, "signed_up_at": MILLISECONDS, "paid": b"\x04\xe2"}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(plain), value)
    return b"\0" + schema_id.to_bytes(4, "big") + stream.getvalue()


@pytest.mark.slow
def test_a_stream_in_avro_is_landed_and_built(tmp_path: Path) -> None:
    copy_project(tmp_path)
    (tmp_path / "streams" / "signups.yml").write_text(CONTRACT)
    signups: Stream = read_contracts(tmp_path / "streams")["signups"]

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    with LocalRegistry() as registry:
        schema_id = registry.register("signups-value", json.dumps(SCHEMA))
        other = registry.register("other-value", '{"type": "object"}', "JSON")
        good = written(schema_id, 1, 17)
        SpoolProducer(Settings(_env_file=None, spool_path=tmp_path / "spool")).produce(
            signups,
            [
                Message(good),
                Message(written(schema_id, 2, None)),
                Message(b"{}"),
                Message(good[:-1]),
                Message(b"\0" * 5),  # no schema has the id 0
                Message(b"\0" + other.to_bytes(4, "big") + b"{}"),
                Message(None),
            ],
        )
        done = run("-m", "ingest", "land")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(
            "error: stream signups has the format avro, but no schema registry is configured:"
        )
        registry.status = 403
        done = run("-m", "ingest", "land", SCHEMA_REGISTRY_URL=registry.url)
        assert done.returncode == 2
        assert done.stderr.startswith("error: the schema registry at 127.0.0.1")
        assert done.stderr.count("\n") == 1
        registry.status = 200
        done = run("-m", "ingest", "land", SCHEMA_REGISTRY_URL=registry.url)
        assert (done.returncode, done.stdout) == (0, "landed 7 messages\n")
    # a build needs no registry
    done = run("-m", "dbt_project", "build")
    assert done.returncode == 0, done.stdout + done.stderr

    def ask(sql: str) -> str:
        code = f"import duckdb; print(duckdb.connect('warehouse.duckdb', read_only=True).sql({sql!r}).fetchall())"
        return run("-c", code).stdout.strip()

    facts = "select event_id, user_id, cast(event_at as text), cast(total_amount as text) from analytics.fct_events"
    assert ask(facts) == f"[('{SIGNUP}1', '17', '2026-01-05 08:00:00.123', '12.5000')]"
    reasons = [
        *("missing:user_id", "undecodable:no_magic_byte", "undecodable:broken_avro", "undecodable:unknown_schema"),
        *("undecodable:not_avro", "malformed_json"),
    ]
    found = ask("select reason from analytics.dead_letters order by split_part(message_id, '/', 3)::bigint")
    assert found == str([(reason,) for reason in reasons])
    assert ask("select payload from analytics.dead_letters where reason like '%broken%'") == str([(good[:-1],)])
