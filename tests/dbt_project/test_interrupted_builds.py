"""A failed run heals itself: killed after any model, or with a model that fails, the next plain build is right.

A day lands before each interrupted build. Whatever one of them loses would be missing in the end, when every mart is
compared with a full refresh: no later day touches the days before.
"""

import json
import signal
from pathlib import Path

import pytest

from tools.warehouses.commands import Warehouse

pytestmark = pytest.mark.exact


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    (tmp_path / "warehouse").mkdir()
    warehouse = Warehouse(tmp_path / "warehouse")
    a_day_lands(warehouse)
    warehouse.build()
    return warehouse


def a_day_lands(warehouse: Warehouse) -> None:
    warehouse.simulate(1, 300, "--late", "0")
    warehouse.land()


def incremental_models(warehouse: Warehouse) -> list[str]:
    nodes = json.loads((warehouse.folder / "target" / "manifest.json").read_text())["nodes"].values()
    return [node["name"] for node in nodes if node["config"]["materialized"] == "incremental"]


def assert_equals_full_refresh(warehouse: Warehouse, folder: Path) -> None:
    warehouse.build()
    refreshed = warehouse.copy_to(folder)
    refreshed.build("--full-refresh")
    assert warehouse.differences(refreshed) == {}


@pytest.mark.timeout(1800)
def test_killed_after_each_model_in_turn(warehouse: Warehouse, tmp_path: Path) -> None:
    models = incremental_models(warehouse)
    assert len(models) == 27
    for model in models:
        a_day_lands(warehouse)
        warehouse.run("tests.dbt_project.killed_build", model, expect=-signal.SIGKILL)
    assert_equals_full_refresh(warehouse, tmp_path / "refreshed")


@pytest.mark.parametrize("model", ["staging.stg_page_views", "analytics.fct_events", "analytics.fct_page_views"])
def test_a_model_fails(warehouse: Warehouse, model: str, tmp_path: Path) -> None:
    """A column that the model does not know makes it fail, since `on_schema_change: fail`."""
    for _ in range(2):
        a_day_lands(warehouse)
        warehouse.change(f"alter table {model} add column unknown integer")
        assert model.split(".")[1] in warehouse.build(expect=1).stderr
        warehouse.change(f"alter table {model} drop column unknown")
    assert_equals_full_refresh(warehouse, tmp_path / "refreshed")
