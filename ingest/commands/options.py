"""Options that several commands have."""

from typing import Annotated

import typer

from common.errors import ContractError
from common.streams import STREAMS

try:
    STREAM_NAMES = ", ".join(STREAMS)
except ContractError:  # main in ingest/cli.py reports it
    STREAM_NAMES = ""

StreamOption = Annotated[
    list[str] | None, typer.Option("--stream", metavar="NAME", help=f"One of {STREAM_NAMES}; repeat for more.")
]
MetricsPortOption = Annotated[
    int | None,
    typer.Option("--metrics-port", metavar="PORT", min=1, max=65535, help="Serve Prometheus metrics on this port."),
]
