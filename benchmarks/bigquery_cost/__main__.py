"""`python -m benchmarks.bigquery_cost`: writes the tables of docs/bigquery.md."""

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bigquery_cost.builds import two_builds
from benchmarks.bigquery_cost.document import DOCUMENT, written
from benchmarks.bigquery_cost.prices import column_bytes


def main() -> None:
    with TemporaryDirectory() as folder:
        reads = two_builds(Path(folder)).reads
        weights = column_bytes(Path(folder))
    DOCUMENT.write_text(written(DOCUMENT.read_text(), reads, weights))


if __name__ == "__main__":
    main()
