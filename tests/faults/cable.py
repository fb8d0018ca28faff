"""A bad cable: a TCP proxy that breaks its connections where it is told to."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from link import Link

Way = Literal["up", "down"]
"""From the client to the broker, and back."""

Kind = Literal["cut", "half-close", "stall"]


@dataclass(frozen=True)
class Fault:
    """What happens to a connection when so many bytes have passed one way.

    `cut`: it is reset. `half-close`: its sender seems to have finished; what else it sends is lost. `stall`: nothing
    passes any more, either way, and nobody is told.
    """

    kind: Kind
    way: Way
    after: int


class Cable(Link):
    """Each connection has the next fault; when there are no more, they are whole.

    `drip`: bytes travel alone. `delays`: they travel in pieces of any size that come some milliseconds apart.
    """

    def __init__(
        self,
        target: str,
        faults: Iterable[Fault] = (),
        *,
        drip: bool = False,
        delays: random.Random | None = None,
    ) -> None:
        super().__init__(target)
        self.faults = iter(faults)
        self.drip = drip
        self.delays = delays
        self.passed: Counter[Way] = Counter()
        self.struck = 0

    @property
    def url(self) -> str:
        return f"ws://{self.address}"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = next(self.faults, None)
        self.writers.add(writer)
        host, port = self.target.rsplit(":", 1)
        try:
            back_reader, back_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            self.drop(writer)
            return
        self.writers.add(back_writer)
        ends = (writer, back_writer)
        going = asyncio.Event()
        going.set()
        for way, source, sink in (("up", reader, back_writer), ("down", back_reader, writer)):
            mine = fault if fault is not None and fault.way == way else None
            pump = asyncio.create_task(self.carry(way, source, sink, mine, ends, going))  # type: ignore[arg-type]
            self.pumps.add(pump)
            pump.add_done_callback(self.pumps.discard)

    async def carry(
        self,
        way: Way,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        fault: Fault | None,
        ends: tuple[asyncio.StreamWriter, ...],
        going: asyncio.Event,
    ) -> None:
        left = fault.after if fault is not None else -1
        try:
            while data := await source.read(65536):
                await going.wait()
                for piece in self.pieces(data):
                    if self.delays is not None:
                        await asyncio.sleep(self.delays.uniform(0, 0.005))
                    last = 0 <= left <= len(piece)
                    if last:
                        piece = piece[:left]
                    left -= len(piece)
                    self.passed[way] += len(piece)
                    sink.write(piece)
                    await sink.drain()
                    if self.drip:
                        await asyncio.sleep(0)
                    if last and fault is not None:
                        self.struck += 1
                        return await self.strike(fault, source, sink, ends, going)
            sink.close()
        except (OSError, RuntimeError):
            self.drop(sink)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        left = iter(data)
        while piece := bytes(islice(left, self.piece(len(data)))):
            yield piece

    def piece(self, most: int) -> int:
        if self.drip:
            return 1
        return most if self.delays is None else self.delays.randint(1, most)

    async def strike(
        self,
        fault: Fault,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, ...],
        going: asyncio.Event,
    ) -> None:
        if fault.kind == "stall":
            going.clear()
        elif fault.kind == "half-close":
            sink.write_eof()
            while await source.read(65536):
                pass
        else:
            for end in ends:
                reset(end)
                self.drop(end)


def reset(writer: asyncio.StreamWriter) -> None:
    """Lets the connection end with RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
