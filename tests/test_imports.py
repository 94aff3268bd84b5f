"""Which top-level packages may import which: the product does not depend on its tests, nor its specification on it."""

import ast
from pathlib import Path

import pytest

from tests.checkout import PACKAGES

ROOT = Path(__file__).parents[1]
DEVELOPMENT = {"specification", "tools", "benchmarks", "tests"}
FORBIDDEN = {
    **dict.fromkeys(PACKAGES, DEVELOPMENT),
    "specification": {*PACKAGES, *DEVELOPMENT} - {"specification"},
    "tools": {"benchmarks", "tests"},
    "benchmarks": {"tests"},
}
"""Package to the packages that it must not import."""


def imported_packages(file: Path) -> set[str]:
    """Top-level packages that a file imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(("package", "forbidden"), FORBIDDEN.items(), ids=FORBIDDEN)
def test_a_package_does_not_import(package: str, forbidden: set[str]) -> None:
    files = [path for path in (ROOT / package).rglob("*.py") if "target" not in path.parts]
    assert files
    assert [f"{file.relative_to(ROOT)}: {name}" for file in files for name in imported_packages(file) & forbidden] == []
