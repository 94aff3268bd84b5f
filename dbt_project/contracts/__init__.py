"""Generates dbt's models, sources, macros and snapshots from the contracts in streams/.

dbt does not read the contracts itself. `make build` writes the files before dbt starts; they are in version control so
that plain dbt works too.
"""

from dbt_project.contracts.layout import MACROS, PROJECT, SOURCES, STAGING
from dbt_project.contracts.write import files, parse_changed_contracts, write_contracts

__all__ = ["MACROS", "PROJECT", "SOURCES", "STAGING", "files", "parse_changed_contracts", "write_contracts"]
