import pytest

from tests.analyses.warehouse import Warehouse, build, opened
from tests.conftest import Shared


@pytest.fixture(scope="session")
def warehouse(shared: Shared) -> Warehouse:
    return opened(shared("analyses", build))
