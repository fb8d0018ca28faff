"""One million acks that time out must leave memory where it was: `.venv/bin/python benches/ack_timeouts.py`.

The recipient is a KPS JSON connection that reads everything and answers nothing. Half as many acks
go first, until allocators and tables have the size that this load needs; what grows after that is
kept by something.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import sys
import threading
import time
from statistics import fmean

from processes import Broker, program, resident_bytes

import kps

WAVE = 10_000
TIMEOUT = 0.1  # seconds
AVERAGED = 5  # waves whose memory makes one figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acks", type=int, default=1_000_000)
    acks = parser.parse_args().acks
    serve = Broker("ws", lambda port: [program("kps", sys.executable), "serve", "--listen", f"127.0.0.1:{port}"])
    with serve.running():
        silent_recipient(serve.url)
        growth = asyncio.run(publish(serve, acks // WAVE))
    for whose, (first, last) in growth.items():
        print(f"{whose}: {first / 1e6:.1f} MB before, {last / 1e6:.1f} MB after {acks:,} acks: {last / first - 1:+.1%}")
    sys.exit(any(last > first * 1.05 for first, last in growth.values()))


async def publish(serve, waves):
    client = await kps.connect(serve.url)
    memory = {"publisher": [], "broker": []}
    for number in range(-(waves // 2), waves):
        acks = [client.publish_with_ack("silence", number, timeout=TIMEOUT) for _ in range(WAVE)]
        for ack in acks:
            (row,) = (await ack.wait()).values()
            assert row.status == "timeout", row
        del acks, ack, row
        if number >= 0:
            memory["publisher"].append(resident_bytes(os.getpid()))
            memory["broker"].append(resident_bytes(serve.pid))
        if sys.stderr.isatty():
            print(f"\r{(number + 1) * WAVE:,} acks ", end="", file=sys.stderr)
    await client.close()
    return {whose: (fmean(sizes[:AVERAGED]), fmean(sizes[-AVERAGED:])) for whose, sizes in memory.items()}


def silent_recipient(url):
    """Subscribes in KPS JSON by hand, then reads and forgets on a thread."""
    host, port = url.removeprefix("ws://").split(":")
    connection = socket.create_connection((host, int(port)))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /ws/bus HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    for action in ({"action": "ping", "from": "silent"}, {"action": "subscribe", "topic": "silence"}):
        text = json.dumps(action).encode()
        # A client's frame is masked; the mask of zeros leaves the text as it is.
        connection.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
    received = b""
    while b'"subscribed"' not in received:
        received += connection.recv(4096)

    def forget():
        said = time.monotonic()
        while connection.recv(1 << 16):
            if time.monotonic() - said > 1:
                said = time.monotonic()
                connection.sendall(b"\x8a\x80" + bytes(4))  # a pong, unasked: it is alive

    threading.Thread(target=forget, daemon=True).start()


if __name__ == "__main__":
    main()
