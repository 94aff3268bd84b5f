"""What is written about the marts: dbt's page, the data dictionary, who reads them."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from dbt_project.dictionary import DICTIONARY, SCHEMAS, dictionary
from tools import ROOT
from tools.warehouses.commands import Warehouse


@pytest.fixture(scope="module")
def manifest(shop: Warehouse) -> Any:
    return json.loads((shop.folder / "target" / "manifest.json").read_bytes())


def test_the_data_dictionary_is_up_to_date(manifest: Any) -> None:
    assert DICTIONARY.read_text() == dictionary(manifest), "run `make docs` and commit docs/data_dictionary.md"


def test_the_data_dictionary_has_every_column_as_it_is(shop: Warehouse) -> None:
    """The snapshots and the seed have no contract that would see to it."""
    found = []
    text = DICTIONARY.read_text().partition("## Metrics")[0]
    for table, columns in re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL):
        for name, type_, description in re.findall(r"^\| `(\w+)` \| (.*?) \| (.+?) \|$", columns, re.MULTILINE):
            assert description
            kind = type_.upper().replace("STRING", "VARCHAR").replace("NUMERIC", "DECIMAL").replace(", ", ",")
            found.append((table, name, kind))
    assert found == shop.query(
        "select table_name, column_name, data_type from information_schema.columns"
        f" where table_schema in {SCHEMAS} order by table_schema, table_name, ordinal_position"
    )


def test_a_column_of_several_models_is_described_once() -> None:
    """In models/columns.md. Files that are written from contracts repeat what the contract says of a field."""
    described = Counter(
        (column["name"], column["description"])
        for path in (ROOT / "dbt_project" / "models").rglob("*.yml")
        if path.parent.name != "contracts"
        for model in (yaml.safe_load(path.read_text()) or {}).get("models", [])
        for column in model.get("columns", [])
    )
    assert [one for one, count in described.items() if count > 1 and "doc(" not in one[1]] == []


@pytest.mark.slow
def test_the_docs_are_one_page_and_it_is_said_where(shop: Warehouse, tmp_path: Path) -> None:
    warehouse = shop.copy_to(tmp_path / "copy")
    said = warehouse.dbt("docs", "generate", "--static").stdout
    page = ROOT / said.removeprefix("docs: ").strip()
    assert page.resolve() == (warehouse.folder / "target" / "static_index.html").resolve()
    text = page.read_text()
    assert "One row per page view (event_key), with its place in the session" in text
    assert re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(?:https?:)?//""", text) == []


def test_every_mart_that_a_query_reads_is_declared(manifest: Any) -> None:
    queries = [node for node in manifest["nodes"].values() if node["resource_type"] == "analysis"]
    declared = set(manifest["exposures"]["exposure.event_warehouse.endpoints"]["depends_on"]["nodes"])
    assert queries
    assert {name for node in queries for name in node["depends_on"]["nodes"]} - declared == set()


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem)
def test_every_mart_that_a_notebook_reads_is_declared(manifest: Any, notebook: Any) -> None:
    read = set(re.findall(r"\b(?:analytics|intermediate|snapshots|staging)\.(\w+)", notebook.read_text()))
    declared = manifest["exposures"][f"exposure.event_warehouse.{notebook.stem}"]["depends_on"]["nodes"]
    assert {name.rpartition(".")[2] for name in declared} == read
