"""`gateway.py PEER post|streams URL OPTIONS`: HTTP/1.1 on connections that are kept alive, and server-sent events.

Nothing of a library is between the socket and the loop; every answer is looked at.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import uvloop
from payload import FIRST, PAYLOAD
from worker import middle, say, told

TOPIC = "bench"
# Events that may be on their way to the slowest reader: the server keeps 1,000 for each.
AHEAD = 500


def request(method, path, body=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def encoded(value):
    return json.dumps(value, separators=(",", ":")).encode()


def publish(number):
    return request("POST", f"/v1/publish/{TOPIC}", encoded({**PAYLOAD, "n": FIRST + number}))


def operation(document, number):
    edit = {"type": "append", "text": "word "}
    body = {"op_id": str(number), "base_version": number, "author": "bench", "edit": edit}
    return request("POST", f"/v1/documents/{document}/operations", encoded(body))


class Asking(asyncio.Protocol):
    """A connection that asks and gets one answer after another."""

    def __init__(self):
        self.buffer = b""
        self.waiting = None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        if self.waiting:
            self.waiting.set_exception(error or ConnectionError("the server has closed the connection"))

    def data_received(self, data):
        self.buffer += data
        head, mark, rest = self.buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) >= length:
            self.buffer = b""
            waiting, self.waiting = self.waiting, None
            waiting.set_result((head[9:12], rest))

    async def ask(self, bytes, status=b"202"):
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(bytes)
        got, body = await self.waiting
        if got != status:
            raise ValueError(f"{got.decode()} is answered: {body.decode()}")
        return body


class Stream(asyncio.Protocol):
    """Counts the events of a stream, and ends the run if one says that others are missing."""

    def __init__(self, path, total, reached):
        self.path, self.total, self.reached = path, total, reached
        self.open = asyncio.get_running_loop().create_future()
        self.tail = b""
        self.count = 0

    def connection_made(self, transport):
        transport.write(request("GET", self.path))

    def data_received(self, data):
        if not self.open.done():
            self.open.set_result(data)
            return
        data = self.tail + data
        # Nothing is counted twice: what is kept is shorter than what is looked for.
        self.tail = data[-len(b"event: messag") :]
        self.count += data.count(b"event: message")
        if b"event: gap" in data:
            say("broken", expected=self.total, got=self.count)
        if self.count >= self.total:
            self.reached()


async def connect(url, make):
    parts = urlsplit(url)
    _, protocol = await asyncio.get_running_loop().create_connection(make, parts.hostname, parts.port)
    return protocol


async def post(peer, url, what, connections, count):
    each = count // connections
    warm = each // 10
    askers = [await connect(url, Asking) for _ in range(connections)]
    if what == "operations" and peer == "kps":
        for place, asker in enumerate(askers):
            await asker.ask(request("PUT", f"/v1/documents/{place}", b'{"kind":"text"}'), b"201")
    make = {"publish": lambda _place, number: publish(number), "operations": operation}[what]
    requests = [[make(place, number) for number in range(warm + each)] for place in range(connections)]
    took = []

    async def run(asker, batch):
        for each in batch:
            began = time.perf_counter()
            await asker.ask(each)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(run(asker, its[:warm]) for asker, its in zip(askers, requests, strict=True)))
    say("ready")
    await told()
    took.clear()
    began = time.perf_counter()
    await asyncio.gather(*(run(asker, its[warm:]) for asker, its in zip(askers, requests, strict=True)))
    lasted = time.perf_counter() - began
    if what == "operations" and peer == "kps":
        for place, asker in enumerate(askers):
            read = json.loads(await asker.ask(request("GET", f"/v1/documents/{place}"), b"200"))
            if read["text"] != "word " * (warm + each):
                say("broken", expected=warm + each, got=read["text"].count("word "))
    took.sort()
    say("end", count=len(took), rate=len(took) / lasted, p50=middle(took), p99=took[int(len(took) * 0.99)])


async def streams(_peer, url, streams, connections, count):
    done = asyncio.Event()
    open_ones = streams

    def reached():
        nonlocal open_ones
        open_ones -= 1
        if open_ones == 0:
            done.set()

    path = f"/v1/events?topic={TOPIC}"
    readers = [await connect(url, lambda: Stream(path, count, reached)) for _ in range(streams)]
    await asyncio.gather(*(reader.open for reader in readers))
    askers = [await connect(url, Asking) for _ in range(connections)]
    requests = [publish(number) for number in range(count)]
    say("ready")
    await told()
    left = iter(requests)
    sent = 0

    async def run(asker):
        nonlocal sent
        for each in left:
            sent += 1
            while sent - min(reader.count for reader in readers) > AHEAD:
                await asyncio.sleep(0.001)
            await asker.ask(each)

    began = time.perf_counter()
    await asyncio.gather(*(run(asker) for asker in askers), done.wait())
    lasted = time.perf_counter() - began
    if any(reader.count != count for reader in readers):
        say("broken", expected=count, got=max(reader.count for reader in readers))
    say("end", rate=streams * count / lasted)


if __name__ == "__main__":
    peer, role, url, options = sys.argv[1:]
    uvloop.run({"post": post, "streams": streams}[role](peer, url, **json.loads(options)))
