"""Runs README's programs as they stand and compares what they print with what README says they print."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def programs() -> list[tuple[str, str, str]]:
    """(language, program, what it prints): the next `text` block after it."""
    return [
        (language, code, next(text for kind, text in BLOCKS[place:] if kind == "text"))
        for place, (language, code) in enumerate(BLOCKS)
        if language in ("python", "js")
    ]


@contextmanager
def broker() -> Iterator[None]:
    """`kps serve` as README starts it, on the default port."""
    require_free_port()
    process = subprocess.Popen([BIN / "kps", "serve", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "9313" in process.stdout.readline()
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 0


def require_free_port() -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 9313))
        except OSError:
            pytest.fail("README's programs use kps' default port 9313; stop what listens there")


@pytest.mark.parametrize(("language", "code", "printed"), programs())
def test_a_program_prints_what_readme_says(language: str, code: str, printed: str, tmp_path: Path) -> None:
    # Node finds `kps` from where the program lies: below this repository, as from any project that installed it.
    program = ROOT / "node_modules" / ".readme.mjs" if language == "js" else tmp_path / "program.py"
    program.write_text(code)
    command = ["node" if language == "js" else sys.executable, str(program)]
    if "Server(" in code:
        require_free_port()
        output = run(command)
    else:
        with broker():
            output = run(command)
            assert run(command) == output, "what the first run left is in the way of the second"
    assert output == printed


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_prints_what_readme_says() -> None:
    place = next(place for place, (kind, code) in enumerate(BLOCKS) if kind == "sh" and "curl" in code)
    (_, code), (kind, printed) = BLOCKS[place : place + 2]
    assert kind == "text"
    with broker():
        assert run(["sh", "-c", code]) == printed


def run(command: list[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_make_targets_of_readme_exist() -> None:
    targets = set(re.findall(r"^make (\w+)", TEXT, re.MULTILINE)) | set(re.findall(r"`make (\w+)`", TEXT))
    assert targets >= {"demo", "test", "bench", "build"}
    for target in targets:
        assert subprocess.run(["make", "-n", target], cwd=ROOT, check=False, capture_output=True).returncode == 0


def commands() -> list[str]:
    return [line.partition(" #")[0].strip() for line in TEXT.splitlines() if line.startswith("kps ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_readme_is_understood(command: str) -> None:
    """Runs those that end by themselves; for the others, their options must parse."""
    words = shlex.split(command)
    assert words[0] == "kps"
    if words[1] in ("pub", "doctor"):
        with broker():
            run([str(BIN / "kps"), *words[1:]])
        return
    if words[1] == "request":
        with broker():
            failed = subprocess.run([BIN / "kps", *words[1:]], check=False, capture_output=True, text=True, timeout=60)
            assert failed.returncode == 1
            assert "no_responders" in failed.stderr
        return
    help_text = run([str(BIN / "kps"), words[1], "--help"])
    for option in re.findall(r"--[a-z-]+", command):
        assert option in help_text
