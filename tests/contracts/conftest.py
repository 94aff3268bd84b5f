"""A spool and a warehouse of each test's own."""

from pathlib import Path

import pytest

from common.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, spool_path=tmp_path / "spool", warehouse_path=tmp_path / "warehouse.duckdb")
