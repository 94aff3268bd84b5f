"""Which relations are published, by the manifest of this project."""

import json
from pathlib import Path

import pytest

from engines.marts import Mart
from publishing.marts import MANIFEST, read_marts
from tools.warehouses.commands import Warehouse

STATE_OF_BUILDS = {"watermarks", "rebuilds", "touched_partitions", "rewritten_rows", "successful_builds", "pins"}


@pytest.fixture
def target(shop: Warehouse) -> Path:
    return shop.folder / "target"


@pytest.fixture
def marts(target: Path) -> dict[str, Mart]:
    return {mart.name: mart for mart in read_marts(target)}


def test_all_that_others_read_is_published(target: Path, marts: dict[str, Mart]) -> None:
    """What queries, metrics, dashboard and notebooks (exposures) read, and every model of the schema analytics."""
    manifest = json.loads((target / MANIFEST).read_bytes())
    nodes = manifest["nodes"]
    readers = [node for node in nodes.values() if node["resource_type"] == "analysis"]
    readers += [*manifest["semantic_models"].values(), *manifest["exposures"].values()]
    assert len(readers) > 30
    read = {nodes[id]["name"] for reader in readers for id in reader["depends_on"]["nodes"] if id in nodes}
    analytics = {
        node["name"]
        for node in nodes.values()
        if node["resource_type"] in ("model", "seed") and node["schema"] == "analytics"
    }
    assert read | analytics <= marts.keys()


def test_nothing_of_staging_and_no_state_is_published(marts: dict[str, Mart]) -> None:
    assert {mart.schema for mart in marts.values()} == {"analytics", "intermediate"}
    assert not [name for name in marts if name.startswith("stg_")]
    assert not {"int_staged_messages", "int_raw_messages", "int_accepted_events"} & marts.keys()
    assert not STATE_OF_BUILDS & marts.keys()


def test_contents_of_rejected_messages_are_not_published(marts: dict[str, Mart]) -> None:
    unpublished = {name: mart.unpublished for name, mart in marts.items() if mart.unpublished}
    assert unpublished == {"dead_letters": {"payload", "detail"}}


def test_how_a_table_changes_is_read_from_its_config(marts: dict[str, Mart]) -> None:
    facts, views, days = marts["fct_events"], marts["fct_page_views"], marts["agg_product_performance_daily"]
    assert (facts.records_changes, facts.unique_key, facts.partition_by) == (True, (), "event_date")
    assert (views.records_changes, views.unique_key, views.partition_by) == (True, ("event_key",), "event_date")
    assert days.unique_key == ("reporting_date", "product_id")
    assert not marts["dim_dates"].records_changes and not marts["dim_countries"].records_changes
    assert marts["dim_users"].is_view


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"incremental_strategy": "delete+insert"}, id="another strategy"),
        pytest.param({"merge_update_columns": ["brand"]}, id="an option of dbt"),
    ],
)
def test_a_model_that_dbt_itself_merges_records_no_changes(
    target: Path, tmp_path: Path, changed: dict[str, object]
) -> None:
    manifest = json.loads((target / MANIFEST).read_bytes())
    manifest["nodes"]["model.event_warehouse.fct_page_views"]["config"].update(changed)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    [views] = [mart for mart in read_marts(tmp_path) if mart.name == "fct_page_views"]
    assert not views.records_changes


def test_a_view_of_staging_is_left_out(target: Path, tmp_path: Path) -> None:
    manifest = json.loads((target / MANIFEST).read_bytes())
    manifest["nodes"]["model.event_warehouse.dim_users"]["depends_on"]["nodes"].append(
        "model.event_warehouse.int_accepted_events"
    )
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert "dim_users" not in {mart.name for mart in read_marts(tmp_path)}
