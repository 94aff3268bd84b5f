"""A patch is one expression over the payload, and reads nothing else."""

from contextlib import closing
from pathlib import Path

import pytest

from common.errors import UserError
from contracts.patch import Patch


def patch(folder: Path, text: str) -> Patch:
    file = folder / "patch.sql"
    file.write_text(text)
    return Patch(file)


@pytest.mark.parametrize(
    ("text", "patched"),
    [
        ("payload -- as it is", ['{"price": "1,5"}', None, "{"]),
        ("json_merge_patch(payload, '{\"a\": 1}')", ['{"price":"1,5","a":1}', None, None]),
        (r"regexp_replace(payload, '(\d),(\d)', '\1.\2')", ['{"price": "1.5"}', None, "{"]),
        ("case when payload like '%price%' then '{}' end", ["{}", None, None]),
        ("cast(cast(payload as integer) as varchar)", [None, None, None]),
    ],
)
def test_where_it_is_null_or_fails_there_is_no_new_payload(
    tmp_path: Path, text: str, patched: list[str | None]
) -> None:
    with closing(patch(tmp_path, text)) as one:
        assert one.apply(['{"price": "1,5"}', None, "{"]) == patched
        assert one.apply([]) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "returns TUPLE: it must return the new payload as JSON or text"),
        ("fix the price", "is not one SQL expression: syntax error"),
        ("payload; drop table raw.clicks", "is not one SQL expression: syntax error"),
        ("delete from raw.clicks", "is not one SQL expression: syntax error"),
        ("payload), (payload", "is not one SQL expression over payload"),
        ("payload) from (values ('')) as other (payload", "is not one SQL expression over payload"),
        ("payload) union all select (''", "is not one SQL expression over payload"),
        ("payload) where (false", "is not one SQL expression over payload"),
        ("payload) limit (1", "is not one SQL expression over payload"),
        ("?", "is not one SQL expression over payload"),
        ("(select payload)", "has a subquery: it may read nothing but payload"),
        ("(select max(payload) from given)", "has a subquery"),
        ("coalesce(payload, (select content from read_text('/etc/hostname')))", "has a subquery"),
        ("lag(payload) over ()", "has a window function"),
        ("*", "has \\*"),
        ("columns('pay.*')", "has \\*"),
        ("max(payload)", "cannot be evaluated: Binder Error: aggregates"),
        ("unnest([payload])", "cannot be evaluated"),
        ("read_text('/etc/hostname')", "cannot be evaluated"),
        ("number::varchar", 'cannot be evaluated: Binder Error: Referenced column "number" not found'),
        ("random()::varchar", "cannot be evaluated"),
        ("no_such_function(payload)", "cannot be evaluated"),
        ("length(payload)", "returns BIGINT: it must return the new payload as JSON or text"),
        ("{'price': 1}", r"returns STRUCT\(price INTEGER\)"),
    ],
)
def test_anything_else_is_an_error_in_one_line(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(UserError, match=error) as raised:
        patch(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory; see --patch"):
        Patch(tmp_path / "missing.sql")
    (tmp_path / "latin.sql").write_bytes(b"'\xe9'")
    with pytest.raises(UserError, match="it is not UTF-8; see --patch"):
        Patch(tmp_path / "latin.sql")


def test_its_name_changes_with_its_text(tmp_path: Path) -> None:
    with closing(patch(tmp_path, "payload")) as first, closing(patch(tmp_path, "payload || ''")) as second:
        assert first.name.startswith("patch.sql ")
        assert first.name != second.name
