"""Types, as `mypy` sees them; among the tests, where both cores work while it does."""

import subprocess
import sys
from pathlib import Path


def test_mypy_finds_nothing() -> None:
    root = Path(__file__).parents[1]
    found = subprocess.run([sys.executable, "-m", "mypy"], cwd=root, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
