"""`python -m tests.dbt_project.killed_build MODEL`: a build that is killed when this model has finished."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from dbt.cli.main import dbtRunner

PROJECT = str(Path(__file__).parents[2] / "dbt_project")


def main() -> None:
    model = sys.argv[1]

    def on_event(event: Any) -> None:
        if event.info.name == "NodeFinished" and event.data.node_info.node_name == model:
            os.kill(os.getpid(), signal.SIGKILL)

    dbtRunner(callbacks=[on_event]).invoke(
        ["--log-level", "none", "build", "--project-dir", PROJECT, "--profiles-dir", PROJECT]
    )


if __name__ == "__main__":
    main()
