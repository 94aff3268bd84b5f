"""Finds files of events and opens them, decompressed and decoded."""

import codecs
import glob
import gzip
import io
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, BinaryIO, Literal

import structlog

from common.errors import UserError

Format = Literal["csv", "json", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "json",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
}
"""Maps a file extension, without .gz, to the format."""

SHOWN_CHARACTERS = 300
"""Maximum characters of a file's content in an error message."""
SAMPLE = 100
"""Number of lines or bodies that are read to detect what a file holds."""
BLOCK_BYTES = 1024 * 1024
"""Bytes per read, and maximum length of a line in the sample."""
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
log = structlog.get_logger()


class UnreadableError(Exception):
    """The content of a file cannot be read; `EventFile.reading` adds the file's name."""


@dataclass
class EventFile:
    """One file, which can be read several times."""

    name: str
    """The name for messages to the user."""
    path: Path
    copy: IO[bytes] | None = field(default=None, repr=False)
    """The temporary file at `path`, if the events came from a pipe. It is deleted with this object."""

    @property
    def format(self) -> Format:
        """The format by the file's extension, or by the first bytes of a pipe.

        Raises:
            UserError: for an unknown extension.
        """
        if self.copy is not None:
            with self.path.open("rb") as file:
                if file.read(len(PARQUET)) == PARQUET:
                    return "parquet"
            with self.open() as file:
                return "json" if file.read(BLOCK_BYTES).lstrip()[:1] in (b"{", b"[") else "csv"
        known = _format(self.path)
        if known is None:
            raise UserError(
                f"{self.name}: expected {', '.join(FORMATS)} (also .gz); to read another file, pipe it to"
                " standard input and give - as the file"
            )
        return known

    def open(self) -> BinaryIO:
        """Open the text, decompressed, as UTF-8 without a byte order mark. UTF-16 is detected by its mark."""
        file: BinaryIO = self.path.open("rb")
        if file.read(2) == GZIP:
            file.close()
            file = io.BufferedReader(gzip.GzipFile(self.path), BLOCK_BYTES)
        file.seek(0)
        mark = file.read(3)
        if mark == codecs.BOM_UTF8:
            return file
        file.seek(0)
        if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return io.BufferedReader(_Recoded(io.TextIOWrapper(file, "utf-16", newline="\n")))
        return file

    def open_parquet(self) -> Path:
        """Return the path of a Parquet file. Parquet is read at random positions, so a compressed file is decompressed
        to a copy first."""
        with self.path.open("rb") as file:
            is_compressed = file.read(len(GZIP)) == GZIP
        if is_compressed:
            with self.open() as file:
                copied = _copy(self.name, file)
            self.path, self.copy = copied.path, copied.copy
        return self.path

    @property
    def is_plain(self) -> bool:
        """Whether the file needs neither decompression nor decoding, which can fail at any byte."""
        with self.path.open("rb") as file:
            return file.read(2) not in (GZIP, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn errors from reading the file into a UserError that names it."""
        try:
            yield
        except UnreadableError as error:
            raise UserError(f"{self.name}: {error}") from error
        except OSError as error:  # gzip raises it too, then without strerror
            raise UserError(f"{self.name} cannot be read: {error.strerror or error}") from error
        except (EOFError, zlib.error) as error:
            raise UserError(f"{self.name} cannot be decompressed: {error}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{self.name} begins like {error.encoding} text, but is not: {error.reason}") from error


class _Recoded(io.RawIOBase):
    """Encodes text as UTF-8."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        encoded = self._text.read(max(1, len(buffer) // 4)).encode()  # a character takes up to 4 bytes
        buffer[: len(encoded)] = encoded
        return len(encoded)

    def close(self) -> None:
        self._text.close()
        super().close()


def find_files(names: Sequence[str]) -> list[EventFile]:
    """Find files. A name is the path of a file, a pipe or a folder, or a glob, or `-` for standard input.

    Pipes and standard input are copied to a temporary file, because files are checked before they are produced.

    Returns:
        Each file once, in the order of the names; sorted by path within a folder (recursively) or a glob.

    Raises:
        UserError: for a folder or glob without a file of a known format, or a pipe that cannot be copied.
    """
    found: list[EventFile] = []
    for name in names:
        path = Path(name)
        if name == "-":
            found.append(_copy("standard input", sys.stdin.buffer))
        elif path.is_fifo() or path.is_char_device():
            with path.open("rb") as pipe:
                found.append(_copy(name, pipe))
        elif path.is_dir():
            found += _known_files(name, path.rglob("*"))
        # not Path.glob, which takes no absolute pattern
        elif not path.exists() and (matches := glob.glob(name, recursive=True)):  # noqa: PTH207
            folders = [Path(match).rglob("*") for match in matches if Path(match).is_dir()]
            found += _known_files(name, chain(map(Path, matches), *folders))
        else:
            found.append(EventFile(str(path), path))
    return list({file.name: file for file in found}.values())


def _known_files(name: str, paths: Iterable[Path]) -> list[EventFile]:
    """Return the files of known formats, sorted. Others are skipped with a warning, hidden files and Spark's _SUCCESS
    without one."""
    files = sorted(path for path in set(paths) if path.is_file() and path.name[0] not in "._")
    known = [EventFile(str(path), path) for path in files if _format(path)]
    if not known:
        raise UserError(f"{name} contains no file of a known format: {', '.join(FORMATS)} (also .gz)")
    if others := [str(path) for path in files if not _format(path)]:
        log.warning("skipped files of unknown formats", files=others[:10], count=len(others))
    return known


def _format(path: Path) -> Format | None:
    return FORMATS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def _copy(name: str, pipe: BinaryIO) -> EventFile:
    copy = NamedTemporaryFile(prefix="events-")  # noqa: SIM115  it lives as long as the EventFile
    try:
        shutil.copyfileobj(pipe, copy)
        copy.flush()
    except OSError as error:
        raise UserError(f"{name} cannot be copied to {copy.name}: {error.strerror}; set TMPDIR") from error
    return EventFile(name, Path(copy.name), copy)
