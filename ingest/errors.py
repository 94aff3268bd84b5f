"""The exceptions that the command line shows as one line instead of a traceback."""


class UserError(Exception):
    """Something the user can put right; the message says what happened and what to do (exit code 2)."""


class UnavailableError(UserError):
    """Something that landing needs does not answer; `--follow` outlasts it."""


class WarehouseHeldError(UnavailableError):
    """Another process has held the warehouse for longer than LOCK_TIMEOUT_SECONDS."""
