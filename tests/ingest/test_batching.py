"""The bounds of a batch: rows, bytes and seconds."""

import time

import numpy as np
import pytest

from common.settings import Settings
from ingest.batching import MAX_FETCH_SECONDS, BatchBounds, BatchSize

BOUNDS = BatchBounds(rows=3, bytes=100, seconds=5.0)


@pytest.mark.parametrize(
    ("rows", "size", "is_full"), [(0, 0, False), (2, 99, False), (3, 0, True), (1, 100, True), (4, 500, True)]
)
def test_a_batch_is_full_once_it_has_the_rows_or_the_bytes(rows: int, size: int, is_full: bool) -> None:
    batch = BatchSize(BOUNDS)
    batch.add(rows, size)
    assert batch.is_full is is_full
    assert (batch.rows_left, batch.bytes_left) == (3 - rows, 100 - size)
    batch.remove(rows, size)
    assert not batch.is_full


def test_anything_fits_into_an_empty_batch_and_otherwise_what_is_left() -> None:
    batch = BatchSize(BOUNDS)
    assert batch.fits(10, 1000)
    batch.add(1, 60)
    assert batch.fits(2, 40)
    assert not batch.fits(3, 0)
    assert not batch.fits(1, 41)


@pytest.mark.parametrize(
    ("ends", "fitting"),
    [([49, 99, 149], 2), ([50, 100, 150], 1), ([500, 600], 1), ([9, 19, 29, 39], 3), ([9], 1)],
)
def test_rows_that_end_before_the_bound_fit_but_at_least_one(ends: list[int], fitting: int) -> None:
    assert len(np.array(ends)[: BOUNDS.fitting_rows(np.array(ends))]) == fitting


def test_the_clock_of_a_batch_can_start_with_its_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    batch = BatchSize(BOUNDS)
    now += 2.0
    assert batch.seconds_left == 3.0
    batch.restart_clock()
    assert batch.seconds_left == 5.0


def test_a_fetch_returns_before_a_commit_is_due() -> None:
    settings = Settings(_env_file=None, landing_max_rows=7, landing_max_bytes=2048, landing_max_seconds=60.0)
    assert BatchBounds.for_commit(settings) == BatchBounds(7, 2048, 60.0)
    assert BatchBounds.for_fetch(settings) == BatchBounds(7, 2048, MAX_FETCH_SECONDS)
