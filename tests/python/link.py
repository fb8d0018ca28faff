"""A TCP link that a test may cut, freeze and restore."""

from __future__ import annotations

import asyncio


class Link:
    """Forwards 127.0.0.1:`port` to `target` ("host:port")."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.refusing = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.writers: set[asyncio.StreamWriter] = set()
        self.pumps: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    async def open(self, *, cut: bool = False, frozen: bool = False) -> None:
        if cut:
            self.cut()
        if frozen:
            self.freeze()
        if self.server is None:
            self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
            host, port = self.server.sockets[0].getsockname()[:2]
            self.address = f"{host}:{port}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        host, port = self.target.rsplit(":", 1)
        try:
            if self.refusing:
                raise ConnectionRefusedError
            back_reader, back_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            self.drop(writer)
            return
        self.writers.add(back_writer)
        for source, sink in ((reader, back_writer), (back_reader, writer)):
            pump = asyncio.create_task(self.pump(source, sink))
            self.pumps.add(pump)
            pump.add_done_callback(self.pumps.discard)

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self.flowing.wait()
                sink.write(data)
                await sink.drain()
            sink.close()
        except (OSError, RuntimeError):
            self.drop(sink)

    def drop(self, writer: asyncio.StreamWriter) -> None:
        self.writers.discard(writer)
        writer.transport.abort()

    def cut(self) -> None:
        """Breaks every connection and refuses new ones."""
        self.refusing = True
        for writer in list(self.writers):
            self.drop(writer)

    def restore(self) -> None:
        self.refusing = False

    def freeze(self) -> None:
        """Passes nothing on; connections stay up."""
        self.flowing.clear()

    def thaw(self) -> None:
        self.flowing.set()

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        self.cut()
        for pump in list(self.pumps):
            pump.cancel()
