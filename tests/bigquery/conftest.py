"""One analyzer per session: it takes a second to start, and half a minute the first time on a machine."""

import pytest

from tools.googlesql.engine import GoogleSQL


@pytest.fixture(scope="session")
def google_sql() -> GoogleSQL:
    return GoogleSQL()
