"""The exceptions that the command line shows as one line instead of a traceback."""


class UserError(Exception):
    """Something the user can fix; the message says what happened and what to do (exit code 2)."""


class ContractError(UserError):
    """A contract of streams/ has a mistake, or there is none."""


class UnavailableError(UserError):
    """Something that landing needs does not answer, or a disk is full; `--follow` retries until it works again."""


class WarehouseHeldError(UnavailableError):
    """Another process has held the warehouse for longer than LOCK_TIMEOUT_SECONDS."""


class WarehouseReplacedError(UserError):
    """The warehouse holds less than this process landed in it, such as a restored backup. Raised once: the sink then
    continues from the warehouse's positions. The caller must open the sources again, so that they do so too."""


class WarehouseReopenError(UserError):
    """DuckDB gave the open warehouse up, such as after a full disk: it has to be closed and opened again."""
