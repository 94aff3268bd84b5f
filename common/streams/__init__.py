"""The streams of this project: each has one contract, the file `streams/<name>.yml`, which describes its messages."""

from collections import UserDict
from functools import cached_property
from pathlib import Path

from common.errors import UserError
from common.streams.contract import Stream, Transport
from common.streams.fields import BodyField, EventType
from common.streams.names import RESERVED, VOCABULARY
from common.streams.reading import read_contracts

__all__ = [
    "FOLDER",
    "RESERVED",
    "STREAMS",
    "VOCABULARY",
    "BodyField",
    "EventType",
    "Stream",
    "Transport",
    "named",
    "read_contracts",
]

FOLDER = Path(__file__).parents[2] / "streams"


class _Contracts(UserDict[str, Stream]):
    """Reads the contracts at their first use, since commands that only read published marts need none."""

    def __init__(self) -> None:
        pass  # UserDict's __init__ would set `data`

    @cached_property
    def data(self) -> dict[str, Stream]:  # type: ignore[override]
        return read_contracts(FOLDER)


STREAMS = _Contracts()
"""The project's contracts by name, in the order of `read_contracts`. The first use raises a ContractError if one has a
mistake."""


def named(names: list[str] | None) -> list[Stream]:
    """Return the streams of these names, each once; all streams without names.

    Raises:
        UserError: for a name that no stream has.
    """
    if not names:
        return list(STREAMS.values())
    for name in names:
        if name not in STREAMS:
            raise UserError(f"unknown stream {name!r}; the streams are {', '.join(STREAMS)}")
    return [STREAMS[name] for name in dict.fromkeys(names)]
