"""What is known of each stream's bodies agrees with the staging model that reads them."""

import re

import pytest

from ingest.streams import STAGING, STREAMS, Stream, body_fields

BY_VARIABLE = {("page_views", "user_id")}
"""Required only with var session_key: user_id."""


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_fields_are_those_of_the_staging_model(stream: Stream) -> None:
    fields = body_fields(stream)
    alternatives = {field for group in stream.required for field in group.split("|")}
    assert {*stream.times, *alternatives, *filter(None, [stream.key_field])} <= set(fields)
    assert len(set(fields)) == len(fields) >= 5
    [model] = STAGING.glob(f"*/stg_{stream.name}.sql")
    reasons = set(re.findall(r"'missing:(\w+)'", model.read_text()))
    required = {group.split("|")[0] for group in stream.required}
    assert required == reasons - {field for name, field in BY_VARIABLE if name == stream.name}


def test_fields_may_be_listed_in_a_variable() -> None:
    assert "user_session" in body_fields(STREAMS["ecom_events"])
    assert "OS" in body_fields(STREAMS["web_events"])
