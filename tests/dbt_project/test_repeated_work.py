"""The compiled templates that one process of dbt keeps for the next."""

from pathlib import Path
from unittest.mock import patch

import pytest
from dbt.clients.jinja import get_rendered
from dbt_common.clients.jinja import MacroFuzzEnvironment
from dbt_common.dataclass_schema import dbtClassMixin
from dbt_common.events.base_types import BaseEvent

from dbt_project import repeated_work
from dbt_project.repeated_work import repeated_work_left_out


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    file = tmp_path / "templates.marshal"
    with repeated_work_left_out(file):
        assert get_rendered("{{ 1 + n }}", {"n": 1}) == "2"
        assert get_rendered("{{ 1 + n }}", {"n": 1}, native=True) == 2
    compiled = patch.object(MacroFuzzEnvironment, "_generate", side_effect=AssertionError("it was compiled"))
    with compiled, repeated_work_left_out(file):
        assert get_rendered("{{ 1 + n }}", {"n": 2}) == "3"
        assert get_rendered("{{ 1 + n }}", {"n": 2}, native=True) == 3
        with pytest.raises(Exception, match="it was compiled"):
            get_rendered("{{ 2 + n }}", {"n": 2})


@pytest.mark.parametrize("content", [b"", b"not a template", b"\xff" * 100])
def test_a_broken_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "templates.marshal"
    file.write_bytes(content)
    with repeated_work_left_out(file):
        assert get_rendered("{{ n }}", {"n": 1}) == "1"
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_bytes() != content


def test_codes_of_other_versions_are_not_used(tmp_path: Path) -> None:
    file = tmp_path / "templates.marshal"
    with repeated_work_left_out(file):
        get_rendered("{{ n }}", {"n": 1})
    with patch.object(repeated_work, "version", lambda _: "0"):
        assert repeated_work._load(file) == {}
    assert repeated_work._load(file)


def test_dbt_is_as_before_afterwards(tmp_path: Path) -> None:
    before = MacroFuzzEnvironment.compile, BaseEvent.__init__, vars(dbtClassMixin)["validate"]
    with pytest.raises(KeyError), repeated_work_left_out(tmp_path / "missing" / "templates.marshal"):
        get_rendered("{{ n }}", {"n": 1})
        raise KeyError
    assert (MacroFuzzEnvironment.compile, BaseEvent.__init__, vars(dbtClassMixin)["validate"]) == before
