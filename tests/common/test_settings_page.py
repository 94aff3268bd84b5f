"""docs/settings.md shows every setting and var, as the code has them."""

from common.settings import Settings
from common.settings_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make docs` and commit docs/settings.md"


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_var_is_described() -> None:
    from dbt_project.__main__ import Vars

    for name in Vars.model_fields:
        assert f"| `{name}` |" in page()
