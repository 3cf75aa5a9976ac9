"""Format, types, and what the linters say, beside the other tests: it takes a while, and they mostly wait."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
def test_the_linters_have_nothing_to_say() -> None:
    ended = subprocess.run(
        ["make", "--no-print-directory", "lint"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        pytest.fail(ended.stdout, pytrace=False)
