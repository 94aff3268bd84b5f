"""Writes the contract of a new stream from a sample of its messages: `python -m ingest stream add`."""

from dataclasses import dataclass
from pathlib import Path

from common.streams import FOLDER, Transport
from contracts.draft import Draft
from contracts.files import new_file, validate
from contracts.samples import Sample
from contracts.text import contract_text


@dataclass(frozen=True)
class Written:
    """A contract that was written."""

    path: Path
    fields: int
    guesses: int
    """Number of comments that mark guesses."""
    left_out: list[str]
    """Paths that no contract can name, each with the reason."""


def add_stream(
    name: str,
    sample: Sample,
    *,
    transport: Transport = "kafka",
    topic: str | None = None,
    is_entity: bool = False,
    force: bool = False,
    folder: Path = FOLDER,
) -> Written:
    """Write the contract of a new stream, with a comment wherever it is guessed.

    Args:
        name: Name of the stream and of the file.
        sample: Messages of the stream.
        transport: Its broker.
        topic: Its topic, if that is not the name of the stream.
        is_entity: The messages are versions of things, not events.
        force: Replace an existing file.
        folder: Folder of the contracts.

    Raises:
        UserError: for a name that a stream cannot have, a file that exists, and a sample without what a contract needs.
    """
    path = new_file(name, folder=folder, force=force)
    draft = Draft(name, sample, transport, topic, is_entity)
    text = contract_text(draft)
    fields = validate(path, text)
    path.write_text(text, encoding="utf-8")
    return Written(path, fields, text.count("# guessed:"), draft.left_out)
