"""What docs/streams.md shows is run, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.streams import STREAMS

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "streams.md"


@pytest.mark.slow
def test_a_stream_is_added_by_one_file(tmp_path: Path) -> None:
    for name in ("ingest", "dbt_project", "serve", "analyses", "snapshots", "streams"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("target", "logs", "__pycache__"))
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "requirements.txt").touch()
    os.utime(tmp_path / "locked" / "requirements.txt", (0, 0))  # .venv is there, and is not installed again
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    [contract] = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    [commands] = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (tmp_path / "streams" / "signups.yml").write_text(contract)

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = run(commands)
    assert re.search(r"signup +2\b", said)
    assert "invalid:timestamp" in said

    def ask(sql: str) -> str:
        code = f"import duckdb; print(duckdb.connect('warehouse.duckdb', read_only=True).sql({sql!r}).fetchall())"
        return run(f".venv/bin/python -c {code!r}").strip()

    assert ask("select stream, landed, accepted, rejected from analytics.landing_reconciliation") == (
        "[('signups', 3, 2, 1)]"
    )
    facts = (
        "select event_type, event_id, user_id, country, cast(total_amount as text) from analytics.fct_events order by 2"
    )
    assert ask(facts) == "[('signup', 's1', '17', 'ES', '12.5000'), ('signup', 's2', '18', 'FR', None)]"
    assert ask("select plan from staging.stg_signups order by message_id") == "[('team',), ('free',), (None,)]"

    # once the contract is gone, its messages are in no mart: that is an error, and they are still in raw
    (tmp_path / "streams" / "signups.yml").unlink()
    done = subprocess.run(["make", "build"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "raw.signups" in done.stdout + done.stderr
    assert ask("select count(*) from raw.signups") == "[(3,)]"


def test_the_guide_names_every_key_of_a_contract() -> None:
    text = GUIDE.read_text()
    stream = next(iter(STREAMS.values()))
    for name in {*type(stream).model_fields, *type(stream.fields[0]).model_fields} - {"name"}:
        assert f"`{name}`" in text, name
