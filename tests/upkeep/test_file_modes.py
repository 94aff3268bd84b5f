"""What commands write is for its owner alone, unless UMASK says otherwise."""

from pathlib import Path

import pytest

from tests.conftest import SHOP_OUTPUT
from tools.warehouses.commands import Warehouse


def modes(folder: Path) -> dict[str, int]:
    """The permissions of the files and folders that commands wrote, by path."""
    found = [path for path in folder.rglob("*") if not path.is_symlink() and path.name != SHOP_OUTPUT]
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in found}


def test_warehouse_spool_published_copies_and_dbts_files_are_private(shop: Warehouse) -> None:
    found = modes(shop.folder)
    assert {"warehouse.duckdb", "spool/users/0.ndjson", "warehouse.duckdb.published"} <= set(found)
    assert any(path.endswith("marts.json") for path in found)
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}


@pytest.mark.parametrize(("umask", "mode"), [("", 0o600), ("027", 0o640), ("0007", 0o660)])
def test_umask_gives_a_group_permissions(tmp_path: Path, umask: str, mode: int) -> None:
    warehouse = Warehouse(tmp_path / "warehouse", {"UMASK": umask} if umask else {})
    warehouse.simulate(1, 20)
    warehouse.land()
    warehouse.run("upkeep", "backup", str(tmp_path / "backup"))
    restored = Warehouse(tmp_path / "restored", warehouse.settings)
    restored.folder.mkdir()
    restored.run("upkeep", "restore", str(tmp_path / "backup"))
    restored.run("upkeep", "compact")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {restored.path, warehouse.path, tmp_path / "backup" / "manifest.json"} <= set(files)
    assert {str(path): oct(path.stat().st_mode & 0o777) for path in files} == dict.fromkeys(map(str, files), oct(mode))


def test_a_umask_that_is_not_octal_is_an_error(tmp_path: Path) -> None:
    done = Warehouse(tmp_path, {"UMASK": "888"}).run("ingest", "land", expect=2)
    assert done.stderr.startswith("error: UMASK: ")
    assert done.stderr.count("\n") == 1
