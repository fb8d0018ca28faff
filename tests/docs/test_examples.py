"""Every example runs in Python and in Node, and prints the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_example_prints_the_same_in_both_languages() -> None:
    command = [sys.executable, str(ROOT / "tests/run_examples.py")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
