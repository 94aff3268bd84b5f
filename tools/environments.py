"""Virtual environments in .cache, for packages that do not fit beside those of the project."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools import ROOT


def environment(name: str, pins: Sequence[str], code: str) -> Path:
    """Return a virtual environment with these packages; when it is created, `code` is run in it once."""
    folder = ROOT / ".cache" / name
    variables = {**os.environ, "HOME": str(folder)}  # DuckDB looks for its extensions there
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        python = folder / "bin" / "python"
        commands: list[list[str | Path]] = [
            [sys.executable, "-m", "venv", folder],
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins],
            [python, "-c", code],
        ]
        for command in commands:
            result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=600)
            assert result.returncode == 0, result.stderr[-2000:]
        (folder / "ready").touch()
    return folder
