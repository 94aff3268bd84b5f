"""Snapshots keep what builds saw; the histories keep what was."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Literal

import pytest
from dbt.adapters.duckdb.connections import DuckDBConnectionManager

from common.settings import Settings
from common.streams import STREAMS
from dbt_project.contracts import write_contracts
from dbt_project.warm import WarmProject
from ingest.message import Message
from ingest.producers.spool import SpoolProducer
from tests.checkout import copy_project
from tools.warehouses.commands import Warehouse


def version(
    user_name: str, updated_at: str, deleted_at: str | None = None, created_at: str = "2026-01-01T00:00:00Z"
) -> Message:
    body = {
        "user_id": "u",
        "user_name": user_name,
        "created_at": created_at,
        "updated_at": updated_at,
        "deleted_at": deleted_at,
    }
    return Message(json.dumps(body).encode(), key=b"u")


def land_and_build(warehouse: Warehouse, *versions: Message) -> None:
    """Build the snapshots and what they are made from."""
    settings = Settings(_env_file=None, spool_path=warehouse.folder / "spool")
    SpoolProducer(settings).produce(STREAMS["users"], versions)
    warehouse.land()
    warehouse.dbt(*SNAPSHOTS)


USERS = STREAMS["users"]
SNAPSHOTS = ("build", "--select", "+resource_type:snapshot", "--indirect-selection", "cautious")


@pytest.mark.slow
def test_a_version_replaced_between_two_builds_is_in_the_history_only(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    land_and_build(warehouse, version("first", "2026-01-02T00:00:00Z"))
    land_and_build(warehouse, version("replaced", "2026-01-03T00:00:00Z"), version("seen", "2026-01-04T00:00:00Z"))
    # a version that arrives late belongs in the middle of the history; no build saw it as the latest
    land_and_build(warehouse, version("late", "2026-01-02T12:00:00Z"))
    land_and_build(warehouse, version("deleted", "2026-01-05T00:00:00Z", deleted_at="2026-01-05T00:00:00Z"))
    history = "select user_name, is_deleted from analytics.dim_users_history order by version_number"
    assert warehouse.query(history) == [
        ("first", False), ("late", False), ("replaced", False), ("seen", False), ("deleted", True)
    ]  # fmt: skip
    snapshot = "select user_name, dbt_is_deleted from snapshots.{} order by dbt_valid_from"
    assert warehouse.query(snapshot.format("users_snapshot")) == [
        ("first", "False"), ("seen", "False"), ("deleted", "False")
    ]  # fmt: skip
    # who is deleted leaves dim_users, which dim_users_snapshot records as a row of its own
    assert warehouse.query(snapshot.format("dim_users_snapshot")) == [
        ("first", "False"), ("seen", "False"), ("seen", "True")
    ]  # fmt: skip
    valid = "select bool_and(dbt_valid_to = '9999-12-31') from snapshots.users_snapshot where user_name = 'deleted'"
    assert warehouse.query(valid) == [(True,)]


@pytest.mark.slow
def test_a_snapshot_that_the_history_does_not_know_fails_the_build(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    land_and_build(warehouse, version("first", "2026-01-02T00:00:00Z"))
    warehouse.change("update snapshots.users_snapshot set updated_at = '2026-01-01 12:00:00'")
    test = "snapshots_are_versions_of_history"
    assert test in warehouse.dbt("test", "--select", test, expect=1).stderr


@pytest.mark.slow
def test_a_version_that_other_rules_reject_leaves_the_snapshots_right(tmp_path: Path) -> None:
    """It stays in the snapshots as what builds saw, closed by a deletion."""
    warehouse = Warehouse(tmp_path)
    land_and_build(warehouse, version("old", "2026-01-02T00:00:00Z"))
    later = ("--vars", json.dumps({"earliest_event_at": "2026-01-10"}))
    warehouse.dbt(*SNAPSHOTS, "--full-refresh", *later)
    rows = "select user_name, dbt_is_deleted from snapshots.users_snapshot order by dbt_valid_from"
    assert warehouse.query(rows) == [("old", "False"), ("old", "True")]
    warehouse.dbt(*SNAPSHOTS, *later)


@pytest.mark.slow
def test_a_newer_version_that_other_rules_reject_does_not_fail_builds(tmp_path: Path) -> None:
    """dbt closes a row of a snapshot by a newer version or a deletion: by an older version it does not."""
    warehouse = Warehouse(tmp_path)
    land_and_build(
        warehouse,
        version("old", "2026-01-02T00:00:00Z"),
        version("new", "2026-01-03T00:00:00Z", created_at="2019-05-01T00:00:00Z"),
    )
    warehouse.dbt(*SNAPSHOTS, "--full-refresh", "--vars", json.dumps({"earliest_event_at": "2020-01-01"}))
    assert warehouse.query("select user_name from analytics.dim_users_history where is_current") == [("old",)]


@pytest.mark.slow
def test_what_becomes_personal_goes_from_the_rows_of_earlier_builds(tmp_path: Path) -> None:
    key = "the key of this test"
    warehouse = Warehouse(tmp_path, {"PSEUDONYM_KEY": key})
    copy_project(tmp_path / "clone", ("dbt_project", "snapshots", "analyses"))
    snapshots = ["users_snapshot", "dim_users_snapshot"]

    def build(personal: dict[str, Literal["drop", "hash"]], *options: str) -> None:
        fields = [field.model_copy(update={"personal": personal.get(field.name)}) for field in USERS.fields]
        project = tmp_path / "clone" / "dbt_project"
        write_contracts(project, {**STREAMS, "users": USERS.model_copy(update={"fields": fields})})
        warehouse.land()
        select = [f"+{snapshot}" for snapshot in snapshots]
        try:
            WarmProject(project, tmp_path).run(
                warehouse.path, "build", "--exclude-resource-type", "test", "unit_test", "--select", *select, *options
            )
        finally:
            DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]

    def publish(user_name: str, updated_at: str) -> None:
        settings = Settings(_env_file=None, spool_path=warehouse.folder / "spool")
        SpoolProducer(settings).produce(USERS, [version(user_name, updated_at)])

    def hashed(text: str) -> str:
        return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()

    def names(snapshot: str) -> list[object]:
        return [name for (name,) in warehouse.query(f"select user_name from snapshots.{snapshot} order by updated_at")]

    publish("ann", "2026-01-02T00:00:00Z")
    build({})
    publish("bea", "2026-01-03T00:00:00Z")
    build({"user_name": "hash"}, "--full-refresh")
    assert [names(snapshot) for snapshot in snapshots] == [[hashed("ann"), hashed("bea")]] * 2
    publish("cleo", "2026-01-04T00:00:00Z")
    build({"user_name": "hash"})
    assert [names(snapshot) for snapshot in snapshots] == [[hashed("ann"), hashed("bea"), hashed("cleo")]] * 2
    publish("dora", "2026-01-05T00:00:00Z")
    build({"user_name": "drop"}, "--full-refresh")
    for snapshot in snapshots:
        rows = warehouse.query(f"from snapshots.{snapshot}")
        assert len(rows) == 4
        assert not [text for text in ("ann", "cleo", "dora", hashed("ann")) if text in repr(rows)]
