"""Dagster assets that land and build: `dagster dev --python-file deploy/dagster/definitions.py`.

Install Dagster in its own environment. Each asset runs a command of .venv, so that their packages cannot conflict.
"""

import subprocess
from pathlib import Path

import dagster

ROOT = Path(__file__).parents[2]


def run(context: dagster.AssetExecutionContext, *arguments: str) -> None:
    """Run a command of event-warehouse, and log its output."""
    done = subprocess.run(  # noqa: S603  fixed arguments, no shell
        [ROOT / ".venv" / "bin" / "event-warehouse", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    context.log.info(done.stdout)
    if done.returncode:
        raise dagster.Failure(description=done.stderr.strip())


@dagster.asset(group_name="event_warehouse")
def landed_messages(context: dagster.AssetExecutionContext) -> None:
    """The raw tables, with all messages that were waiting."""
    run(context, "land")


@dagster.asset(deps=[landed_messages], group_name="event_warehouse")
def marts(context: dagster.AssetExecutionContext) -> None:
    """The marts, built, tested and published."""
    run(context, "build")


every_five_minutes = dagster.ScheduleDefinition(
    name="every_five_minutes",
    job=dagster.define_asset_job("land_and_build", selection=[landed_messages, marts]),
    cron_schedule="*/5 * * * *",
)
defs = dagster.Definitions(assets=[landed_messages, marts], schedules=[every_five_minutes])
