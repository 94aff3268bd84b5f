"""The files of contracts: names a new one, and validates a text before it is written."""

import shutil
import tempfile
from pathlib import Path

from common.errors import UserError
from common.streams import FOLDER, read_contracts
from common.streams.names import NAME, RESERVED


def new_file(name: str, *, folder: Path = FOLDER, force: bool = False) -> Path:
    """Return the path of a new contract.

    Raises:
        UserError: for a name that a stream cannot have, or a file that exists; `force` allows the latter.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name a stream: use lowercase letters, digits and _, such as signups")
    if name in RESERVED.split():
        raise UserError(f"{name} cannot name a stream: it is a reserved word of SQL; use {name}_events")
    path = folder / f"{name}.yml"
    if path.exists() and not force:
        raise UserError(f"{folder.name}/{name}.yml exists; --force replaces it")
    return path


def validate(path: Path, text: str) -> int:
    """Read a contract together with the other contracts of its folder, before it is written there.

    Returns:
        The number of its fields.

    Raises:
        ContractError: for a mistake.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / path.parent.name  # errors show this name
        folder.mkdir()
        for other in path.parent.glob("*.yml"):
            shutil.copy(other, folder)
        (folder / path.name).write_text(text, encoding="utf-8")
        return len(read_contracts(folder)[path.stem].fields)
