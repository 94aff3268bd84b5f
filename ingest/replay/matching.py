"""Checks that the columns or fields of a file are those of a stream, and renames columns as `--map` says."""

import difflib
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

import structlog

from common.errors import UserError
from common.streams import Stream
from ingest.files import EventFile
from ingest.files.columns import check_distinct
from ingest.files.event_file import SAMPLE, SHOWN_CHARACTERS
from ingest.message import value_at
from ingest.replay.rows import object_of

BEGINNING = 60
"""Maximum bytes of a file that is not JSON in an error message."""
log = structlog.get_logger()


class Matcher:
    """Compares files with a stream.

    Args:
        renames: `OURS=THEIRS` each: the column THEIRS is the field OURS.
        force: Accept files that do not match.

    Raises:
        UserError: for a rename that is not valid.
    """

    def __init__(self, stream: Stream, renames: Sequence[str], force: bool) -> None:
        self.renames = _parsed_renames(renames, stream)
        """Maps a column of the files to a path of the stream."""
        self.paths = [path for field in stream.fields for path in field.paths]
        self._stream = stream
        self._force = force

    def rename(self, file: EventFile, columns: list[str]) -> list[str]:
        """Return the columns with their new names.

        Raises:
            UserError: for a rename of a column that the file does not have, or two columns of one name.
        """
        for theirs in self.renames:
            if theirs not in columns:
                raise UserError(f"--map: {file.name} has no column {theirs!r}, but {_shown(columns)}")
        renamed = [self.renames.get(column, column) for column in columns]
        check_distinct(file, renamed)
        return renamed

    def check_columns(self, file: EventFile, columns: list[str], how: str) -> None:
        """Reject a file without a required column; warn if an optional column may have another name.

        Args:
            how: How the columns were found, for the error message.

        Raises:
            UserError: with the renames that probably help.
        """
        unread = [column for column in columns if column not in self.paths]
        absent = [field.in_body for field in self._stream.fields if not set(field.paths) & set(columns)]
        if not self._force and (missing := self._missing(columns)):
            advice = []
            if any("\0" in column for column in columns):
                advice.append("If it is UTF-16, save it with a byte order mark")
            elif len(unread) == len(columns):
                advice.append("A file without a header row needs one")
            maps = [f"--map {shlex.quote(f'{ours}={theirs}')}" for ours, theirs in _alike(absent, unread)]
            advice.append(f"Rename columns with {' '.join(maps) or '--map ours=theirs'}")
            found = f"columns {_shown(columns)}{how}"
            raise UserError(self._mismatch(file, "column", missing, found, advice))
        if unread and absent:
            log.warning(
                "some columns are not fields of the stream; --map renames them",
                file=file.name,
                unknown_columns=unread,
                missing_fields=absent,
            )

    def check_bodies(self, file: EventFile, bodies: Iterable[bytes]) -> None:
        """Reject a JSON file whose first bodies all lack a required field.

        Raises:
            UserError: naming the missing fields.
        """
        if self._force:
            return
        first, found = b"", dict[str, None]()
        for body in islice(bodies, SAMPLE):
            first = first or body
            fields = object_of(body, self._stream) or {}
            found.update(dict.fromkeys(fields))
            found.update({path: None for path in self.paths if value_at(fields, path) is not None})
        if first and (missing := self._missing(found)):
            if not found:
                beginning = _shown([first[:BEGINNING].decode("utf-8", "replace")])
                raise UserError(
                    f"{file.name} has no JSON object with fields in its first rows, but {beginning!r}; nothing was"
                    " published (--force publishes it as it is)"
                )
            raise UserError(self._mismatch(file, "field", missing, f"fields {_shown([*found])}", []))

    def _missing(self, found: Collection[str]) -> list[str]:
        """Return the required fields of which no path was found."""
        paths = {field.in_body: field.paths for field in self._stream.fields}
        return [
            " or ".join(group)
            for group in self._stream.required
            if not {path for name in group for path in paths[name]} & set(found)
        ]

    def _mismatch(self, file: EventFile, what: str, missing: list[str], found: str, advice: list[str]) -> str:
        sentences = [
            f"{file.name} does not match stream {self._stream.name}: no {what} {', '.join(missing)}",
            f"Found {found}",
            f"Fields of the stream: {', '.join(self._stream.body_fields)}",
            *advice,
            "--force produces the file as it is; nothing was produced",
        ]
        return ". ".join(sentences)


def _parsed_renames(renames: Sequence[str], stream: Stream) -> dict[str, str]:
    """Parse the renames to a mapping of the file's columns to the stream's fields."""
    ours_by_theirs: dict[str, str] = {}
    fields = [path for field in stream.fields for path in field.paths]
    for rename in renames:
        ours, equals, theirs = rename.partition("=")
        if not equals or not theirs:
            raise UserError(f"--map {rename}: expected ours=theirs, such as --map {fields[0]}=their_column")
        if ours not in fields:
            raise UserError(f"--map {rename}: {stream.name} has no field {ours!r}; its fields are {', '.join(fields)}")
        if ours_by_theirs.setdefault(theirs, ours) != ours:
            raise UserError(f"--map: column {theirs!r} cannot be both {ours_by_theirs[theirs]} and {ours}")
    return ours_by_theirs


def _alike(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pair fields with columns of similar names."""
    plain = {re.sub(r"\W|_", "", column).lower(): column for column in theirs if column.isprintable()}
    for field in ours:
        for match in difflib.get_close_matches(re.sub(r"\W|_", "", field).lower(), plain, n=1, cutoff=0.75):
            yield field, plain.pop(match)


def _shown(values: Sequence[str]) -> str:
    """Join values for a terminal: without control characters, and cut to SHOWN_CHARACTERS."""
    text = ", ".join(values)[:SHOWN_CHARACTERS]
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(text) < SHOWN_CHARACTERS else f"{printable}…"
