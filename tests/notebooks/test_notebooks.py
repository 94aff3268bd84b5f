"""Each notebook, top to bottom, on a small warehouse."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import ROOT
from tools.warehouses.commands import Warehouse

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def exported(notebook: Path, warehouse: Warehouse, page: Path) -> subprocess.CompletedProcess[str]:
    """What marimo says when it runs every cell and renders what it shows."""
    command = [sys.executable, "-m", "marimo", "export", "html", str(notebook), "--output", str(page)]
    return subprocess.run(
        command, cwd=ROOT, env=warehouse.environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_its_charts_are_drawn(notebook: Path, shop: Warehouse, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = exported(notebook, shop, page)
    assert (done.returncode, done.stderr) == (0, "")
    assert "vnd.vegalite" in page.read_text()


def test_a_cell_that_fails_is_noticed(shop: Warehouse, tmp_path: Path) -> None:
    notebook = tmp_path / "broken.py"
    text = (ROOT / "notebooks" / "attribution.py").read_text()
    notebook.write_text(text.replace("analytics.dim_products", "analytics.no_such_mart"))
    done = exported(notebook, shop, tmp_path / "page.html")
    assert done.returncode == 1
    assert "no_such_mart" in done.stderr


def test_notebooks_are_as_marimo_writes_them() -> None:
    subprocess.run([sys.executable, "-m", "marimo", "check", "--strict", *NOTEBOOKS], check=True, cwd=ROOT)
