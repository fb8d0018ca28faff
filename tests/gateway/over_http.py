"""A server in a process of its own, for clients that know nothing of kps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KPS = str(Path(sys.executable).parent / "kps")


@contextmanager
def serving(*options: str, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """`kps serve`, on a free port unless said; its HTTP address."""
    command = [KPS, "serve", "--json", "--listen", listen, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield "http://" + json.loads(process.stdout.readline())["listening"]
    finally:
        process.terminate()
        assert process.wait(20) == 0
