"""A sample of signups, files of it in every format, and the contract of a stream of signups."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.streams import Stream

ROWS = [
    {
        "signup_id": f"s{number}",
        "user_id": number % 3,
        "signed_up_at": f"2026-01-05T10:00:{number:02}Z",
        "country": "ES",
        "paid": 12.5,
        "is_team": number % 2 == 0,
        "seats": number,
    }
    for number in range(9)
]

CONTRACT = """\
# ours
description: People who signed up.
transport: kafka
kind: event
fields:  # what we read
  - name: sent_at   # when
    required: true
    description: |
      When they
      signed up.
  - {name: country, description: Country.}  # two letters
  # the end
time: [sent_at]
event_type: signup
"""


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind in ("csv", "tsv"):
        separator = {"csv": ";", "tsv": "\t"}[kind]
        lines = [rows[0].keys(), *(["" if one is None else str(one) for one in row.values()] for row in rows)]
        path.write_text("\n".join(separator.join(line) for line in lines))
    else:
        texts = list(map(json.dumps, rows))
        pretty = json.dumps(rows, indent=1)
        path.write_text("\n".join(texts) if kind == "ndjson" else pretty)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def fields_of(stream: Stream) -> dict[str, dict[str, Any]]:
    """Path to what the contract says of the field, beside its description."""
    return {
        field.in_body: {
            key: value
            for key, value in field.model_dump(exclude_defaults=True).items()
            if key not in ("description", "path")
        }
        for field in stream.fields
    }
