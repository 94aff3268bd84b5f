"""The project and the seed of random worlds: EXACT_PROJECT and EXACT_SEED."""

import os
import secrets
from pathlib import Path

import pytest

from tools.warehouses.in_process import Project

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = Path(os.environ.get("EXACT_PROJECT", REPOSITORY / "dbt_project"))
    return Project(folder, tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="session")
def seed() -> int:
    """A random seed, unless given. Failures print it."""
    return int(os.environ.get("EXACT_SEED") or secrets.randbelow(2**31))
