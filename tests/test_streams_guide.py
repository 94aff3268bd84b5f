"""What docs/streams.md shows is run, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.streams import BodyField, EventType, Stream
from tests.checkout import copy_project
from tools.brokers import KafkaServer, SchemaRegistry

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "streams.md").read_text()


class Walk:
    """A copy of the project, in which the commands of a section are run."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self._environment = {**os.environ, **variables}
        copy_project(folder)
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "locked").mkdir()
        (folder / "locked" / "requirements.txt").touch()
        os.utime(folder / "locked" / "requirements.txt", (0, 0))  # .venv is there, and is not installed again
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])

    def invoke(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False
        )

    def run(self, script: str) -> str:
        done = self.invoke(["bash", "-euc", script])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, sql: str) -> str:
        code = f"import duckdb; print(duckdb.connect('warehouse.duckdb', read_only=True).sql({sql!r}).fetchall())"
        done = self.invoke([".venv/bin/python", "-c", code])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def blocks(section: str, language: str) -> list[str]:
    [text] = (part for part in re.split(r"^## ", GUIDE, flags=re.MULTILINE) if part.startswith(f"{section}\n"))
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_a_stream_goes_from_a_sample_to_a_chart(tmp_path: Path) -> None:
    walk = Walk(tmp_path)
    section = "From a sample to a chart"
    add, check, rest = blocks(section, "sh")
    walk.run(add)
    [contract] = blocks(section, "yaml")
    assert (tmp_path / "streams" / "signups.yml").read_text() == contract
    [verdict] = blocks(section, "text")
    assert [line.split() for line in walk.run(check).splitlines()] == [line.split() for line in verdict.splitlines()]

    said = walk.run(rest)
    assert re.search(r"signup +4\b", said)
    for plan in ("free", "team"):
        assert re.search(rf"plan +{plan} +2 +2 +0\.5000", said)
    assert "invalid:timestamp" in said
    report = (tmp_path / "report.html").read_text()
    for title in ("Total events", "Fields that differ from the contract"):
        assert "signup" in report.partition(f"<h3>{title}</h3>")[2].partition("</article>")[0], title
    assert walk.ask("select stream, landed, accepted, rejected from analytics.landing_reconciliation") == (
        "[('signups', 5, 4, 1)]"
    )
    facts = (
        "select event_id, event_type, user_id, country, properties->>'plan', properties->>'paid'"
        " from analytics.fct_events where event_id in ('s1', 's2') order by 1"
    )
    assert walk.ask(facts) == (
        "[('s1', 'signup', '17', 'ES', 'team', '12.5'), ('s2', 'signup', '18', 'FR', 'free', None)]"
    )
    for model in ("staging.stg_signups where reject_reason is null", "analytics.fct_events"):
        assert "example.com" not in walk.ask(f"select * from {model}")

    # once the contract is gone, its messages are in no mart: that is an error, and they are still in raw
    (tmp_path / "streams" / "signups.yml").unlink()
    done = walk.invoke(["make", "build"])
    assert done.returncode != 0
    assert "bring back streams/signups.yml, or drop it" in " ".join((done.stdout + done.stderr).split())
    assert walk.ask("select count(*) from raw.signups") == "[(5,)]"


@pytest.mark.brokers
def test_an_avro_topic_and_a_change_log_become_streams(
    tmp_path: Path, kafka_server: KafkaServer, schema_registry: SchemaRegistry
) -> None:
    walk = Walk(
        tmp_path,
        KAFKA_BOOTSTRAP_SERVERS=kafka_server.bootstrap_servers,
        SCHEMA_REGISTRY_URL=schema_registry.url,
        KAFKA_GROUP_ID="guide",
    )
    for section, script in (("An Avro topic", "rent_bikes.py"), ("A change log with history", "change_customers.py")):
        [program] = blocks(section, "python")
        (tmp_path / script).write_text(program)
        [commands] = blocks(section, "sh")
        walk.run(commands)
    rentals = "select count(*), min(event_type), sum(price), min(properties->>'bike_model') from analytics.fct_events"
    assert walk.ask(rentals) == "[(20, 'rental', Decimal('280.0000'), 'cargo')]"
    assert walk.ask("select id, plan from analytics.dim_customers") == "[('1', 'team')]"
    history = (
        "select id, plan, is_tombstone, is_deleted from analytics.dim_customers_history order by id, version_number"
    )
    assert walk.ask(history) == (
        "[('1', 'free', False, False), ('1', 'team', False, False),"
        " ('2', 'team', False, False), ('2', 'team', False, True), ('2', None, True, True)]"
    )
    assert walk.ask("select id, plan from snapshots.customers_snapshot") == "[('1', 'team')]"
    balanced = "select stream, landed, accepted, is_balanced from analytics.landing_reconciliation order by 1"
    assert walk.ask(balanced) == "[('customers', 5, 5, True), ('rentals', 20, 20, True)]"


def test_the_guide_names_every_key_of_a_contract() -> None:
    for name in {*Stream.model_fields, *BodyField.model_fields, *EventType.model_fields} - {"name", "field"}:
        assert f"`{name}" in GUIDE, name


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_new_field_is_added_and_any_other_change_of_columns_asks_for_a_rebuild(tmp_path: Path) -> None:
    walk = Walk(tmp_path)
    contract = tmp_path / "streams" / "signups.yml"
    contract.write_text(
        "description: Sign-ups.\ntransport: pubsub\nkind: event\nid: [id]\nevent_type: signup\ntime: [at]\nfields:\n"
        "- {name: id, type: id, description: Id.}\n- {name: at, type: timestamp, required: true, description: Time.}\n"
        "- {name: plan, description: Plan.}\n"
    )
    staged = "select source.plan, source.ref from staging.stg_signups as source order by source.event_id"

    def receive(number: int) -> None:
        body = f'{{"id": "s{number}", "at": "2026-01-05T10:00:00Z", "plan": "{number}", "ref": "ad"}}'
        (tmp_path / "one.ndjson").write_text(body)
        walk.run(".venv/bin/python -m ingest replay one.ndjson --stream signups; .venv/bin/python -m ingest land")

    receive(1)
    walk.run("make build")
    walk.run(".venv/bin/python -m ingest stream promote signups ref --type string")
    receive(2)
    done = walk.invoke(["make", "build"])
    assert done.returncode == 0, done.stdout + done.stderr
    command = "make build SELECT=stg_signups+ FULL_REFRESH=1"
    assert command in " ".join((done.stdout + done.stderr).split())
    assert walk.ask(staged) == "[('1', None), ('2', 'ad')]"
    walk.run(command)
    assert walk.ask(staged) == "[('1', 'ad'), ('2', 'ad')]"

    # text would be cast to the type of the column, or the column of a personal field kept
    for old, new, reason in (
        ("name: plan,", "name: plan, type: integer,", "plan has another type"),
        ("name: plan,", "name: plan, personal: drop,", "plan is gone"),
    ):
        text = contract.read_text()
        contract.write_text(text.replace(old, new))
        receive(3)
        done = walk.invoke(["make", "build"])
        assert done.returncode != 0
        message = f"the columns of stg_signups have changed ({reason}): run `{command}`"
        assert message in " ".join((done.stdout + done.stderr).split())
        contract.write_text(text)
    walk.run("make build")
    assert walk.ask(staged) == "[('1', 'ad'), ('2', 'ad'), ('3', 'ad'), ('3', 'ad')]"

    # a field of a model with unit tests, which replace the source that has the key
    users = tmp_path / "streams" / "users.yml"
    users.write_text(users.read_text().replace("name: first_name\n", "name: first_name\n    personal: hash\n"))
    walk.run("make build SELECT=stg_users FULL_REFRESH=1")
