"""Downloads the brokers into .cache/brokers, once per version."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tools import ROOT
from tools.brokers.server import BrokerError, MissingError

CACHE = ROOT / ".cache" / "brokers"


def downloaded(name: str, download: Callable[[Path], list[str]]) -> Path:
    """The folder of this name in the cache, filled if it is not there yet.

    Args:
        download: returns the command that downloads into a given folder.

    Raises:
        BrokerError: if the command fails.
    """
    folder = CACHE / name
    if folder.is_dir():
        return folder
    # Filled under another name, so that an interrupted download is never taken for a complete one.
    partial = CACHE / f"{name}.{os.getpid()}"
    partial.mkdir(parents=True)
    (CACHE / ".gitignore").write_text("*\n")
    try:
        command = download(partial)
        # Maven writes marker files into its working directory.
        result = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False, timeout=600)
        if result.returncode:
            raise BrokerError(f"{name} could not be downloaded:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
        if not folder.is_dir():  # another process may have been faster
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def maven() -> str:
    """The path of Maven.

    Raises:
        MissingError: if it is not installed.
    """
    path = shutil.which("mvn")
    if path is None:
        raise MissingError("Maven, which downloads the brokers, is missing (Debian: apt-get install maven)")
    return path
