"""The input of the benchmarks: a day is the same however many are drawn, and late parts leave nothing out."""

from pathlib import Path

import duckdb
import pytest

from benchmarks import shop
from common.streams import STREAMS

pytestmark = pytest.mark.slow


@pytest.fixture
def small_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shop, "EVENTS_PER_DAY", 300)
    monkeypatch.setattr(shop, "FOLDER", tmp_path / "shop")
    monkeypatch.setattr(shop, "LATE_DAYS", 3)
    return tmp_path


def rows(warehouse: Path, columns: str) -> list[tuple[object, ...]]:
    union = " union all ".join(f"select {columns} from raw.{stream}" for stream in STREAMS)
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        return connection.sql(f"from ({union}) order by all").fetchall()


MESSAGE = 'stream, message_id, "offset", key, attributes, published_at, payload'


def test_days_drawn_one_by_one_are_those_drawn_at_once(small_shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one, at_once = small_shop / "one.duckdb", small_shop / "all.duckdb"
    landed = [shop.land(one_by_one, range(day, day + 1)) for day in range(3)]
    monkeypatch.setattr(shop, "FOLDER", small_shop / "again")
    assert shop.land(at_once, range(3)) == sum(landed)
    assert rows(one_by_one, f"{MESSAGE}, landed_at") == rows(at_once, f"{MESSAGE}, landed_at")
    days = {str(landed_at) for (landed_at,) in rows(at_once, "landed_at")}
    assert days == {f"2026-01-0{day} 12:00:00" for day in (2, 3, 4)}


def test_late_parts_are_what_was_left_out(small_shop: Path) -> None:
    whole, parted = small_shop / "whole.duckdb", small_shop / "parted.duckdb"
    messages = shop.land(whole, range(4))
    first = shop.land(parted, range(4), but_late_parts=2)
    late = [shop.land_late(parted, 4, part, 5 + part) for part in range(2)]
    assert first + sum(late) == messages
    assert all(0.15 * messages < count < 0.35 * messages for count in late), "a third of three of the four days"
    assert rows(parted, MESSAGE) == rows(whole, MESSAGE)
    landed = [str(landed_at) for (landed_at,) in rows(parted, "landed_at")]
    assert [landed.count(f"2026-01-0{day} 12:00:00") for day in (7, 8)] == late


def test_parts_of_a_day_are_the_day(small_shop: Path) -> None:
    whole, parted = small_shop / "whole.duckdb", small_shop / "parted.duckdb"
    messages = shop.land(whole, range(1))
    assert sum(shop.land_part(parted, 0, part) for part in range(shop.LATE_DAYS)) == messages
    assert rows(parted, MESSAGE) == rows(whole, MESSAGE)
