"""The names that streams and their fields may have, and those that the project keeps for itself."""

import re
from typing import Literal

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""The name of a stream."""
RESERVED = (
    "all analyse analyze and anti any array as asc asof assert_rows_modified asymmetric at authorization between"
    " binary both by case cast check collate collation column columns concurrently constraint contains create"
    " cross cube current default deferrable define desc describe distinct do else end enum escape except exclude exists"
    " extract false fetch following for foreign freeze from full generated glob grant group grouping groups hash"
    " having if ignore ilike in initially inner intersect interval into is isnull join lambda lateral leading left"
    " like limit lookup map merge natural new no not notnull null nulls of offset on only or order outer over"
    " overlaps partition pivot pivot_longer pivot_wider placing positional preceding primary proto qualify range"
    " recursive references returning right rollup rows select semi set show similar some struct summarize"
    " symmetric table tablesample then to trailing treat true try_cast tuple unbounded union unique unnest unpack"
    " unpivot using variadic verbose when where window with within"
)
"""Words that DuckDB or GoogleSQL rejects as the name of a table."""
VOCABULARY: dict[str, Literal["text", "amount"]] = {
    "user_id": "text",
    "source_session_id": "text",
    "product_id": "text",
    "post_id": "text",
    "page_title": "text",
    "category_code": "text",
    "brand": "text",
    "price": "amount",
    "total_amount": "amount",
    "country": "text",
    "city": "text",
    "browser": "text",
    "os": "text",
    "url": "text",
    "engaged_seconds": "amount",
    "account_number": "text",
    "traffic_source": "text",
}
"""Columns of fct_events, with their types, that fields of these names fill."""
OWN_COLUMNS = {
    "event": "stream message_id attributes payload body body_text event_key event_id source_event_id event_type"
    " type_text time_text event_at event_date published_at landed_at properties unlisted_fields is_malformed"
    " reject_reason reject_detail rejected_payload decode_error",
    "entity": "stream message_id attributes payload body body_text key key_id op version_key version_number"
    " is_tombstone is_deleted created_at created_text updated_at updated_text deleted_at deleted_text deleted_time"
    " is_deleted_text valid_from valid_to is_current published_at landed_at unlisted_fields is_malformed"
    " is_key_mismatch reject_reason reject_detail rejected_payload decode_error log_number newest_updated_at"
    " newest_tombstone_at tombstones effective_at next_effective_at",
}
"""Maps a kind of stream to the columns that staging and histories add, including those used only inside their SQL."""
OWN_PREFIXES = ("dbt_", "time_text_", "_text_of_")
"""Prefixes of the columns that snapshots and staging add."""
OWN_TABLES = ("landing_offsets", "landing_writers", "landing_empty_offsets", "emit_watermarks", "pseudonym_key")
"""Tables of the schema raw that are not a stream's."""
_STEP = r"[A-Za-z0-9_@$:/-][A-Za-z0-9_@$:/ -]*"
PATH = re.compile(rf"{_STEP}(\.{_STEP}|\[[0-9]{{1,4}}\])*")
"""A path in the body, such as `props.ref` or `items[0].sku`."""
