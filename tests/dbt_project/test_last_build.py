"""What counts as the same code and the same warehouse."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.settings import Settings
from dbt_project import last_build
from dbt_project.last_build import LastBuild, code_now, read_last_build, write_last_build
from engines.factory import engine_for


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in last_build.FOLDERS:
        shutil.copytree(last_build.ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(last_build, "ROOT", tmp_path)
    return tmp_path


def reverse(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text((root / path).read_text()[::-1])


@pytest.mark.parametrize(
    "change",
    [
        reverse("dbt_project/models/analytics/fct_events.sql"),
        reverse("dbt_project/models/analytics/fct_events.yml"),
        reverse("dbt_project/macros/watermarks.sql"),
        reverse("dbt_project/seeds/dim_countries.csv"),
        reverse("dbt_project/tests/accounting_balances.sql"),
        reverse("dbt_project/dbt_project.yml"),
        reverse("dbt_project/profiles.yml"),
        reverse("snapshots/_snapshots.yml"),
        reverse("analyses/top_products.sql"),
        reverse("publishing/publish.py"),
        lambda root: (root / "dbt_project/models/analytics/new.sql").write_text("select 1"),
        lambda root: (root / "dbt_project/models/analytics/fct_events.yml").unlink(),
        lambda root: (root / "snapshots/_snapshots.yml").rename(root / "snapshots/other.yml"),
    ],
)
def test_other_files_are_other_code(root: Path, change: Callable[[Path], object]) -> None:
    before = code_now(["build"])
    assert code_now(["build"]) == before
    change(root)
    assert code_now(["build"]) != before


def test_what_dbt_writes_is_no_code(root: Path) -> None:
    before = code_now(["build"])
    for folder in ("target", "logs"):
        (root / "dbt_project" / folder).mkdir(exist_ok=True)
        (root / "dbt_project" / folder / "written").write_text("")
    assert code_now(["build"]) == before


def test_other_vars_variables_and_versions_are_other_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {code_now(["build"]), code_now(["build", "--vars", "{session_gap_seconds: 1}"])}
    monkeypatch.setenv("DBT_FULL_REFRESH", "1")
    found.add(code_now(["build"]))
    monkeypatch.setattr(last_build, "version", lambda package: "0")
    found.add(code_now(["build"]))
    assert len(found) == 4


def test_a_warehouse_is_the_same_until_it_is_written_to(settings: Settings) -> None:
    path = settings.warehouse_path
    path.write_bytes(b"as built")
    engine = engine_for(settings)
    before = engine.state()
    assert before == engine.state() is not None
    wal = path.with_name("warehouse.duckdb.wal")
    wal.write_bytes(b"a commit")
    assert engine.state() is None
    wal.unlink()
    path.write_bytes(b"changed!")
    assert engine.state() != before


def test_a_warehouse_is_built_while_it_and_what_was_published_are_as_the_build_left_them(settings: Settings) -> None:
    engine = engine_for(settings)
    path, published = settings.warehouse_path, settings.warehouse_path.with_name("warehouse.duckdb.published")
    path.write_bytes(b"as built")
    published.mkdir()
    (published / "version").mkdir()
    (published / "current").symlink_to("version")
    state = engine.state()
    assert state is not None
    last = LastBuild(code="c", version="version", warehouse=state, marts=[])
    assert last_build.is_built(settings, engine, last)
    (published / "version").rmdir()
    assert not last_build.is_built(settings, engine, last), "it is not published any more"
    (published / "version").mkdir()
    path.write_bytes(b"changed!")
    assert not last_build.is_built(settings, engine, last)
    path.unlink()
    assert not last_build.is_built(settings, engine, last)


def test_a_record_that_cannot_be_read_is_none(settings: Settings) -> None:
    assert read_last_build(settings) is None
    folder = settings.warehouse_path.with_name("warehouse.duckdb.published")
    folder.mkdir()
    last = LastBuild(code="c", version="v", warehouse=(1, 2), marts=["fct_events"])
    write_last_build(settings, last)
    assert read_last_build(settings) == last
    (folder / "last_build.json").write_text('{"code": "c"')
    assert read_last_build(settings) is None


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, warehouse_path=tmp_path / "warehouse.duckdb")


def test_a_removal_is_due_on_another_day_or_with_other_retention() -> None:
    kept = Settings(_env_file=None, retention_raw_days=90)
    today = last_build.retention_now(kept)
    build = LastBuild(code="", version="", warehouse=(), marts=[], retention=today)
    assert not last_build.is_removal_due(kept, build)
    assert last_build.is_removal_due(kept, build.model_copy(update={"retention": ("2026-01-01", *today[1:])}))
    assert last_build.is_removal_due(Settings(_env_file=None, retention_raw_days=30), build)
    assert not last_build.is_removal_due(Settings(_env_file=None), build)
