"""What docs/your_own_mart.md shows is run, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import copy_project

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "your_own_mart.md"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_marts_of_the_guide_are_exact(tmp_path: Path) -> None:
    copy_project(tmp_path)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "requirements.txt").touch()
    os.utime(tmp_path / "locked" / "requirements.txt", (0, 0))  # .venv is there, and is not installed again
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    text = GUIDE.read_text()
    files = re.findall(r"`(dbt_project/models/\S+\.(?:sql|yml))`:\n\n```(?:sql|yaml)\n(.*?)```", text, re.DOTALL)
    assert [Path(file).name for file, _ in files] == [
        "agg_brands_daily.sql",
        "agg_brands_daily.yml",
        "agg_users_first_purchase.sql",
    ]
    for file, content in files:
        (tmp_path / file).write_text(content)
    [commands] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)

    def run(script: str, expect: int = 0) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    run("make ingest DAYS=2 EVENTS_PER_DAY=500")
    assert "agg_brands_daily equals a full refresh after each run: 300 worlds" in run(commands)
    assert "agg_users_first_purchase equals" in run("make check-mart MART=agg_users_first_purchase")

    # the other condition that the page shows
    [wrong] = re.findall(r"```sql\n(\{% if is_incremental\(\) %\}.*?)```", text, re.DOTALL)
    model = tmp_path / files[0][0]
    right = "{% if is_incremental() %}\n    and {{ in_reporting_dates(dates) }}\n{% endif %}\n"
    assert right in files[0][1]
    model.write_text(files[0][1].replace(right, wrong))
    found = run("make check-mart MART=agg_brands_daily", expect=2)  # of make
    assert "agg_brands_daily differs from a full refresh" in found


def test_the_guide_names_macros_that_there_are() -> None:
    macros = "".join(path.read_text() for path in (ROOT / "dbt_project" / "macros").rglob("*.sql"))
    table = GUIDE.read_text().partition("## The macros")[2]
    named = re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)
    assert len(named) == 13
    for name in named:
        assert re.search(rf"macro {name}\(", macros), name
