"""A real Chromium that opens one page; the page tells what it saw by posting to where it came from."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 60.0
INSTALL = "Chromium is missing: apt-get update && apt-get install -y --no-install-recommends chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)  # fmt: skip


class Site:
    """An HTTP server for the pages of this folder, on an origin of its own."""

    def __init__(self) -> None:
        self.report: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.origin = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        page = HERE / f"{target.partition('?')[0].strip('/')}.html"
        content = page.read_bytes() if page.is_file() else b""
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
        )
        await writer.drain()
        writer.close()
        if method == "POST" and not self.report.done():
            self.report.set_result(json.loads(body))


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    it = Site()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    async with server:
        it.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield it


async def visit(it: Site, page: str, bus: str) -> Any:
    """What the page reports after it was opened with the bus' address."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, INSTALL
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = await asyncio.create_subprocess_exec(
            chromium,
            *FLAGS,
            f"--user-data-dir={profile}",
            f"{it.origin}/{page}?bus={bus}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            return await asyncio.wait_for(it.report, PATIENCE)
        finally:
            browser.terminate()
            await browser.wait()
