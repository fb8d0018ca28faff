"""A value of 1 GiB goes in and out in constant memory: 256 MiB of it in the short form, all with KPS_ROUNDS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 if int(os.environ.get("KPS_ROUNDS", "0")) else 256
EXTRA = 64
"""MiB beyond what was there before."""

BROKER = 160
"""MiB that a server may have at most, its code among them."""

PATIENCE = 600
PROGRAM = Path(__file__).parent / "large_value.py"
KPS = Path(sys.executable).parent / "kps"

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")


def large_value(*arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments, str(MIB)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    took: dict[str, float] = json.loads(done.stdout)
    print(arguments, MIB, "MiB", took)
    return took


def test_a_large_value_takes_constant_memory(tmp_path: Path) -> None:
    assert large_value("mem://", str(tmp_path), "local")["extra"] <= EXTRA


def test_a_large_value_goes_through_a_server_in_constant_memory(tmp_path: Path) -> None:
    serve = [str(KPS), "serve", "--listen", "127.0.0.1:0", "--json", "--data", str(tmp_path / "data")]
    serve += ["--storage-durability", "normal"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as broker:
        try:
            assert broker.stdout is not None
            url = json.loads(broker.stdout.readline())["url"]
            (tmp_path / "own").mkdir()
            assert large_value(url, str(tmp_path / "own"), "server")["extra"] <= EXTRA
            lines = Path(f"/proc/{broker.pid}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM:"))
            assert peak <= BROKER, f"the server had {peak} MiB"
        finally:
            broker.kill()
