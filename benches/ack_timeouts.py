"""Two million acks that time out must leave memory where it was: `.venv/bin/python benches/ack_timeouts.py`.

The recipient is a KPS JSON connection that reads everything and answers nothing. 10,000 acks wait at
a time. Memory is weighed at rest, some seconds after the last ack. Three figures for each process: how much
it has beyond an idle connection after its first ten waves, how much that grows during the first million
acks (*fresh*: allocators and tables still find their size), and during the second (*warm*: what grows now
is kept by something). The last two must stay below 5 %.
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

from processes import Broker, program, resident_bytes

import kps

WAVE = 10_000
TIMEOUT = 0.1  # seconds
FIRST = 10  # waves before memory is weighed for the first time under load
REST = 3  # seconds; memory is given back about one second after the last work


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
    idle, early, middle, late = sizes
    print(
        f"{whose}: {idle / 1e6:.1f} MB idle, {early / 1e6:.1f} MB after the first {FIRST * WAVE:,} acks; "
        f"fresh: {middle / 1e6:.1f} MB after {acks:,} ({middle / early - 1:+.1%}); "
        f"warm: {late / 1e6:.1f} MB after {2 * acks:,} ({late / middle - 1:+.1%})"
    )
    return middle / early - 1, late / middle - 1


async def publish(serve, waves):
    """Resident bytes of both processes: idle, after the first waves, and after each half."""
    client = await kps.connect(serve.url)
    memory = {"publisher": [], "broker": []}

    async def weigh():
        await asyncio.sleep(REST)
        memory["publisher"].append(resident_bytes(os.getpid()))
        memory["broker"].append(resident_bytes(serve.pid))

    await weigh()
    for number in range(1, 2 * waves + 1):
        acks = [client.publish_with_ack("silence", number, timeout=TIMEOUT) for _ in range(WAVE)]
        for ack in acks:
            (row,) = (await ack.wait()).values()
            assert row.status == "timeout", row
        del acks, ack, row
        if number in (FIRST, waves, 2 * waves):
            await weigh()
        if sys.stderr.isatty():
            print(f"\r{number * WAVE:,} acks ", end="", file=sys.stderr)
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
