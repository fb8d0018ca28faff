"""Two million acks that time out must leave memory where it was: `.venv/bin/python benches/ack_timeouts.py`.

The recipient is a KPS JSON connection that reads everything and answers nothing. 10,000 acks wait at
a time. Three figures for each process: how much that load needs beyond an idle connection, how much
memory grows during the first million acks after its first ten waves (*fresh*: allocators and tables still
find their size), and during the second (*warm*: what grows now is kept by something). The last two
must stay below 5 %.
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
AVERAGED = 10  # waves whose memory makes one figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acks", type=int, default=1_000_000, help="in each of the two halves")
    acks = parser.parse_args().acks
    serve = Broker("ws", lambda port: [program("kps", sys.executable), "serve", "--listen", f"127.0.0.1:{port}"])
    with serve.running():
        silent_recipient(serve.url)
        memory = asyncio.run(publish(serve, acks // WAVE))
    grown = [report(whose, sizes, acks) for whose, sizes in memory.items()]
    sys.exit(any(growth > 0.05 for pair in grown for growth in pair))


def report(whose, sizes, acks):
    """Prints what one process' memory did; returns by how much it grew, fresh and warm."""
    idle, *waves = sizes
    half = len(waves) // 2
    early, middle, late = (fmean(part) for part in (waves[:AVERAGED], waves[:half][-AVERAGED:], waves[-AVERAGED:]))
    print(
        f"{whose}: {idle / 1e6:.1f} MB idle, {early / 1e6:.1f} MB after the first {AVERAGED * WAVE:,} acks; "
        f"fresh: {middle / 1e6:.1f} MB after {acks:,} ({middle / early - 1:+.1%}); "
        f"warm: {late / 1e6:.1f} MB after {2 * acks:,} ({late / middle - 1:+.1%})"
    )
    return middle / early - 1, late / middle - 1


async def publish(serve, waves):
    """Resident bytes of both processes: before the first wave, then after each."""
    client = await kps.connect(serve.url)
    memory = {"publisher": [], "broker": []}

    def weigh():
        memory["publisher"].append(resident_bytes(os.getpid()))
        memory["broker"].append(resident_bytes(serve.pid))

    weigh()
    for number in range(2 * waves):
        acks = [client.publish_with_ack("silence", number, timeout=TIMEOUT) for _ in range(WAVE)]
        for ack in acks:
            (row,) = (await ack.wait()).values()
            assert row.status == "timeout", row
        del acks, ack, row
        weigh()
        if sys.stderr.isatty():
            print(f"\r{(number + 1) * WAVE:,} acks ", end="", file=sys.stderr)
    await client.close()
    return memory


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
