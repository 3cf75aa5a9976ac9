"""Modules of ours as programs of their own."""

import os
import sys
from pathlib import Path

ENVIRONMENT = {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[1])}


def command(name: str, *arguments: str) -> list[str]:
    """The command that runs a module under ENVIRONMENT, wherever it is started."""
    return [sys.executable, "-P", "-m", name, *arguments]
