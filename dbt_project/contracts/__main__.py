"""`python -m dbt_project.contracts`: writes the dbt files that follow from the contracts."""

import argparse
import sys

from common.errors import UserError
from dbt_project.contracts import write_contracts

if __name__ == "__main__":
    try:
        argparse.ArgumentParser(
            prog="python -m dbt_project.contracts",
            description="Write the dbt files that follow from streams/*.yml: models, sources, macros and snapshots.",
        ).parse_args()
        write_contracts()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
