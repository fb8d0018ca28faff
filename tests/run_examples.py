"""Runs every example in Python and in Node and insists on the same output: `.venv/bin/python tests/run_examples.py`."""

import asyncio
import os
import pathlib
import sys

import kps

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"
NAMES = [
    "hello",
    "request",
    "acks",
    "groups",
    "direct",
    "durable",
    "document",
    "storage",
    "embedded/server",
    "capabilities/offer",
]
TIMEOUT = 30  # seconds


async def main():
    different = [name for name in NAMES if not await same_output(name)]
    listed = {
        path.relative_to(EXAMPLES).with_suffix("").as_posix()
        for path in EXAMPLES.glob("*.*")
        if path.suffix in (".py", ".mjs")
    }
    forgotten = listed - set(NAMES)
    if forgotten:
        print("not run:", *sorted(forgotten))
    return 1 if different or forgotten else 0


async def same_output(name):
    python = await output(sys.executable, EXAMPLES / f"{name}.py")
    node = await output("node", EXAMPLES / f"{name}.mjs")
    same = python == node and python[0] == 0 and python[1]
    print(f"{name:16} {'same output' if same else 'DIFFERENT'}")
    if not same:
        for language, (code, text) in {"Python": python, "Node": node}.items():
            print(f"--- {language}, exit {code}\n{text}")
    return same


async def output(*command):
    """Exit code and text of one example, which gets a broker of its own."""
    async with kps.Server("127.0.0.1:0") as server:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            f"ws://{server.address}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHON": sys.executable},
        )
        try:
            text, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
        except asyncio.TimeoutError:
            process.kill()
            text = f"no end within {TIMEOUT} s".encode()
        return process.returncode, text.decode()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
