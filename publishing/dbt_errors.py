"""An error of dbt as one line."""

from pathlib import Path

from common.errors import FULL_DISK, UnavailableError, UserError


def user_error(error: object, folder: Path) -> UserError:
    """What dbt could not do, as one line; unavailable while the disk is full.

    Args:
        folder: dbt's target folder.
    """
    if not isinstance(error, OSError):
        return UserError(first_paragraph(error))
    kind = UnavailableError if error.errno in FULL_DISK else UserError
    return kind(f"dbt cannot use its files in {folder}: {error.strerror}")


def first_paragraph(error: object) -> str:
    """The first paragraph of an error of dbt as one line, without the chain of macros."""
    lines = [line.strip() for line in str(error).strip().split("\n\n")[0].splitlines()]
    if len(lines) > 1 and (lines[0] == "Runtime Error" or lines[0].startswith("Compilation Error in operation")):
        lines = lines[1:]
    return " ".join(line for line in lines if line and not line.startswith(">"))
