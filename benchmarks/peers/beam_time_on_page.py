"""Time on page and first clicks in Apache Beam: `python beam_time_on_page.py SHOP_FOLDER DAYS OUTPUT_FOLDER`.

Reads the raw messages of the first DAYS days of benchmarks/shop.py, writes some columns of fct_page_views and
fct_checkout_attribution as Parquet, and prints one JSON object. Runs in its own environment (requirements-beam.txt)
and imports nothing of this project.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.parquetio import ReadAllFromParquet, WriteToParquet
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindows, Sessions, TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

# One process per core. With multi_threading, which shares one interpreter lock, one run of three failed
# ("VarLong too long").
OPTIONS = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=0"]
SESSION_GAP = 60 * 1_000_000
ATTRIBUTION_WINDOW = 3600 * 1_000_000
WINDOW_GAP = Duration(micros=SESSION_GAP + 1000)
"""Beam's Sessions splits at a gap of exactly its size, where fct_page_views does not. So the gap is one millisecond
longer, the smallest step of its windows; `times_on_page` splits the sessions that this joins."""
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC without a zone, as all times here
EARLIEST, END = datetime(2000, 1, 1), datetime(9999, 1, 1)  # noqa: DTZ001

TIME_ON_PAGE = pa.schema(
    [
        ("session_key", pa.string()),
        ("event_id", pa.string()),
        ("event_at", pa.timestamp("us")),
        ("page_title", pa.string()),
        ("sequence_number", pa.int64()),
        ("time_on_page_seconds", pa.decimal128(18, 6)),
    ]
)
FIRST_CLICKS = pa.schema(
    [("checkout_id", pa.string()), ("checkout_at", pa.timestamp("us")), ("first_click_id", pa.string())]
)

Row = dict[str, Any]
Parse = Callable[[Row, Row, int], tuple]
"""Body, message and landing day to event."""


class PageView(NamedTuple):
    """A page view. Of its copies the smallest by (landed_day, message_id) counts. Times are microseconds."""

    landed_day: int
    message_id: str
    event_id: str
    event_at: int
    session_key: str
    page_title: str
    engaged: int | None


class ShopEvent(NamedTuple):
    """A click or a checkout."""

    landed_day: int
    message_id: str
    event_id: str
    event_at: int
    user_id: str
    product_id: str


for kind in (PageView, ShopEvent):
    beam.coders.registry.register_coder(kind, beam.coders.RowCoder)  # faster than pickling


class RejectedError(Exception):
    """A message that is not an acceptable event."""


# --- messages


def text(value: Any) -> str | None:
    """Any JSON value as text; None if it is empty."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def required(value: str | None) -> str:
    if value is None:
        raise RejectedError
    return value


def read_time(written: str) -> datetime:
    read = datetime.fromisoformat(written.removesuffix(" UTC"))
    return read if read.tzinfo is None else read.astimezone(UTC).replace(tzinfo=None)


def read_epoch(written: str, microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=int(written) * microseconds)


def read_amount(written: str | None) -> Decimal | None:
    if written is None:
        return None
    amount = Decimal(written).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    if not amount.is_finite() or abs(amount) >= 10**14:
        raise RejectedError
    return amount


def plausible(read: datetime, message: Row) -> int:
    if not EARLIEST <= read < END or read - message["published_at"] > timedelta(days=1):
        raise RejectedError
    return (read - EPOCH) // timedelta(microseconds=1)


def read_params(params: Any) -> dict[Any, str | None]:
    """GA4's event_params: an object, or a list of keys and typed values, of which the first value of a key counts."""
    if isinstance(params, dict):
        return {name: text(value) for name, value in params.items()}
    read: dict[Any, str | None] = {}
    for param in params if isinstance(params, list) else []:
        if isinstance(param, dict) and isinstance(param.get("value"), dict):
            values = [param["value"].get(f"{kind}_value") for kind in ("string", "int", "double", "float")]
            read.setdefault(param.get("key"), text(next((value for value in values if value is not None), None)))
    return read


def page_view_time(body: Row) -> datetime:
    if written := text(body.get("ga_event_dtm")):
        return read_time(written)
    for name, microseconds in (("event_timestamp_ms", 1000), ("timestamp_ms", 1000), ("event_timestamp", 1)):
        if written := text(body.get(name)):
            return read_epoch(written, microseconds)
    raise RejectedError


def engaged_time(params: dict[Any, str | None]) -> int | None:
    """Microseconds since 1970."""
    seconds = read_amount(params.get("engaged_time"))
    if seconds is None and (milliseconds := read_amount(params.get("engagement_time_msec"))) is not None:
        seconds = (milliseconds / 1000).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    if seconds is not None and not 0 <= seconds <= 999_999_999_999:
        raise RejectedError
    return None if seconds is None else int(seconds * 1_000_000)


def surrogate_key(*texts: str | None) -> str:
    netstrings = ["null" if one is None else f"{len(one)}:{one}" for one in texts]
    return hashlib.md5(",".join(netstrings).encode()).hexdigest()  # noqa: S324  an identity, not a secret


def read_page_view(body: Row, message: Row, landed_day: int) -> PageView:
    """Read one of three formats: GA4's continuous query, an older one (page_id, timestamp_ms), or GA4's export."""
    params = read_params(body.get("event_params"))
    person = text(body.get("user_pseudo_id"))
    session_key = text(body.get("session_id"))
    if session_key is None and person is not None and params.get("ga_session_id") is not None:
        session_key = f"{person}.{params['ga_session_id']}"
    if session_key is None and body.get("page_id") is not None:
        session_key = text(body.get("user_id"))
    session_key = required(session_key)
    page_title = required(text(body.get("page_title")) or text(body.get("page_id")) or params.get("page_title"))
    event_at = plausible(page_view_time(body), message)
    if body.get("event_name") not in (None, "page_view"):
        raise RejectedError
    engaged = engaged_time(params)
    if (params.get("test_event") or "").lower() in ("true", "1"):
        raise RejectedError
    event_id = text(body.get("event_id")) or surrogate_key(session_key, str(event_at), page_title, person)
    return PageView(landed_day, message["message_id"], event_id, event_at, session_key, page_title, engaged)


def read_shop_event(body: Row, message: Row, landed_day: int, id_name: str, amount_name: str) -> ShopEvent:
    read_amount(text(body.get(amount_name)))
    return ShopEvent(
        landed_day,
        message["message_id"],
        required(text(body.get(id_name))),
        plausible(read_time(required(text(body.get("datetime_occured")))), message),
        required(text(body.get("user_id"))),
        required(text(body.get("product_id"))),
    )


def read_click(body: Row, message: Row, landed_day: int) -> ShopEvent:
    return read_shop_event(body, message, landed_day, "click_id", "price")


def read_checkout(body: Row, message: Row, landed_day: int) -> ShopEvent:
    return read_shop_event(body, message, landed_day, "checkout_id", "total_amount")


# --- the pipeline


class Read(beam.DoFn):
    """The event of a message, keyed by its identity (id and UTC date), or nothing."""

    def __init__(self, parse: Parse) -> None:
        self._parse = parse

    def process(self, element: tuple[str, Row]) -> Iterator[tuple[tuple[str, int], Any]]:
        file, message = element
        try:
            body = orjson.loads(message["payload"])
            if isinstance(body, dict):
                event = self._parse(body, message, int(Path(file).stem))
                yield (event.event_id, event.event_at // (86_400 * 1_000_000)), event
        except (ValueError, OverflowError, InvalidOperation, RejectedError):
            pass


class ReadEvents(beam.PTransform):
    """The events of a stream, each once. Messages land day by day: the name of the file has the day."""

    def __init__(self, folder: Path, days: int, parse: Parse, kind: type[PageView] | type[ShopEvent]) -> None:
        super().__init__()
        self._files = [str(folder / f"{day:05}.parquet") for day in range(days)]
        self._parse = parse
        self._kind = kind

    def expand(self, pbegin: beam.Pipeline) -> beam.PCollection:
        return (
            pbegin
            | beam.Create(self._files)
            | ReadAllFromParquet(with_filename=True, columns=["message_id", "published_at", "payload"])
            | beam.ParDo(Read(self._parse)).with_output_types(tuple[tuple[str, int], self._kind])
            | beam.GroupByKey()
            | beam.MapTuple(lambda _, copies: min(copies)).with_output_types(self._kind)
        )


def in_session(view: PageView) -> TimestampedValue:
    return TimestampedValue((view.session_key, view), Timestamp(micros=view.event_at))


def times_on_page(window: tuple[str, Iterable[PageView]]) -> Iterator[Row]:
    """Seconds to the next page view; on the last page of a session, the engagement time."""
    session_key, unordered = window
    views = sorted(unordered, key=lambda view: (view.event_at, view.event_id))
    number = 0
    for view, following in zip_longest(views, views[1:]):
        number += 1
        microseconds = following.event_at - view.event_at if following else None
        is_last = microseconds is None or microseconds > SESSION_GAP
        if is_last:
            microseconds = view.engaged
        yield {
            "session_key": session_key,
            "event_id": view.event_id,
            "event_at": view.event_at,
            "page_title": view.page_title,
            "sequence_number": number,
            "time_on_page_seconds": None if microseconds is None else Decimal(microseconds).scaleb(-6),
        }
        if is_last:
            number = 0


def by_user_and_product(event: ShopEvent) -> tuple[tuple[str, str], ShopEvent]:
    return (event.user_id, event.product_id), event


def first_clicks(pair: tuple[tuple[str, str], dict[str, Iterable[ShopEvent]]]) -> Iterator[Row]:
    """The earliest click in the window before a checkout, including both ends."""
    clicks = sorted((click.event_at, click.event_id) for click in pair[1]["clicks"])
    for checkout in pair[1]["checkouts"]:
        reached = (
            event_id for at, event_id in clicks if checkout.event_at - ATTRIBUTION_WINDOW <= at <= checkout.event_at
        )
        yield {
            "checkout_id": checkout.event_id,
            "checkout_at": checkout.event_at,
            "first_click_id": next(reached, None),
        }


def run(shop: Path, days: int, output: Path) -> None:
    with beam.Pipeline(options=PipelineOptions(OPTIONS)) as pipeline:
        (
            pipeline
            | "Page views" >> ReadEvents(shop / "page_views", days, read_page_view, PageView)
            | beam.Map(in_session).with_output_types(tuple[str, PageView])
            | "Sessions" >> beam.WindowInto(Sessions(WINDOW_GAP))
            | beam.GroupByKey()
            | beam.FlatMap(times_on_page)
            | "All sessions" >> beam.WindowInto(GlobalWindows())
            | "Write times on page" >> WriteToParquet(str(output / "time_on_page"), TIME_ON_PAGE)
        )
        clicks = pipeline | "Clicks" >> ReadEvents(shop / "clicks", days, read_click, ShopEvent)
        checkouts = pipeline | "Checkouts" >> ReadEvents(shop / "checkouts", days, read_checkout, ShopEvent)
        (
            {
                "clicks": clicks | "Key clicks" >> beam.Map(by_user_and_product),
                "checkouts": checkouts | "Key checkouts" >> beam.Map(by_user_and_product),
            }
            | beam.CoGroupByKey()
            | beam.FlatMap(first_clicks)
            | "Write first clicks" >> WriteToParquet(str(output / "first_clicks"), FIRST_CLICKS)
        )


def main() -> None:
    shop, days, output = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    for earlier in [*output.glob("time_on_page*"), *output.glob("first_clicks*")]:
        earlier.unlink()
    started = time.monotonic()
    run(shop, days, output)
    seconds = time.monotonic() - started

    def rows(name: str) -> int:
        return sum(pq.read_metadata(file).num_rows for file in output.glob(f"{name}*"))

    result = {"page_views": rows("time_on_page"), "checkouts": rows("first_clicks")}
    print(json.dumps({"version": beam.__version__, "seconds": round(seconds, 2), **result}))


if __name__ == "__main__":
    main()
