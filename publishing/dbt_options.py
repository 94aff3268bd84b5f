"""How this project runs dbt: the options that name the project, and the environment that profiles.yml reads."""

import os
from pathlib import Path

from common.settings import Settings
from engines.factory import engine_for

PROJECT = Path(__file__).parents[1] / "dbt_project"
PROJECT_OPTIONS = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]


def target() -> Path:
    """The folder in which dbt writes its artifacts."""
    return Path(os.environ.get("DBT_TARGET_PATH", PROJECT / "target"))


def export_environment(settings: Settings) -> None:
    """Set the environment variables that profiles.yml reads."""
    os.environ["WAREHOUSE"] = settings.warehouse
    os.environ["WAREHOUSE_PATH"] = str(settings.warehouse_path.absolute())
    if settings.warehouse_memory_limit is not None:
        os.environ["WAREHOUSE_MEMORY_LIMIT"] = settings.warehouse_memory_limit
    if settings.gcp_project is not None:
        os.environ["GCP_PROJECT"] = settings.gcp_project
    os.environ["GCP_LOCATION"] = settings.gcp_location
    os.environ["BIGQUERY_MAXIMUM_BYTES_BILLED"] = str(settings.bigquery_maximum_bytes_billed)
    os.environ["BIGQUERY_PRIORITY"] = settings.bigquery_priority
    os.environ["DATASET_PREFIX"] = engine_for(settings).schema_prefix
    for name in ("retention_raw_days", "retention_dead_letter_days"):
        if (days := getattr(settings, name)) is not None:
            os.environ[name.upper()] = str(days)
    if settings.build_prefix is not None:
        os.environ["BUILD_PREFIX"] = settings.build_prefix
