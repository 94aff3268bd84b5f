"""The exceptions that the command line shows as one line instead of a traceback."""

import errno
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the system's errors when a disk, a quota or a limit on the size of files is exhausted."""


class UserError(Exception):
    """Something the user can fix; the message says what happened and what to do (exit code 2)."""


class ContractError(UserError):
    """A contract of streams/ has a mistake, or there is none."""


class UnavailableError(UserError):
    """Something that landing needs does not answer, or a disk is full; `--follow` retries until it works again."""


def write_error(path: Path, error: OSError, setting: str) -> UserError:
    """The error of a file that cannot be written; unavailable while its disk is full."""
    kind = UnavailableError if error.errno in FULL_DISK else UserError
    return kind(f"cannot write {path}: {error.strerror}; see {setting}")


class WarehouseHeldError(UnavailableError):
    """Another process has held the warehouse for longer than LOCK_TIMEOUT_SECONDS."""


class WarehouseReplacedError(UserError):
    """The warehouse holds less than this process landed in it, such as a restored backup. Raised once: the sink then
    continues from the warehouse's positions. The caller must open the sources again, so that they do so too."""


class WarehouseReopenError(UserError):
    """DuckDB gave the open warehouse up, such as after a full disk: it has to be closed and opened again."""
