"""One million acks that time out must leave memory where it was: `.venv/bin/python benches/ack_timeouts.py`.

The recipient is a KPS JSON connection that reads everything and answers nothing. Memory of the
publisher and of the broker after the first wave is compared with that after the last.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import sys
import threading

from processes import Broker, program, resident_bytes

import kps

WAVE = 50_000
TIMEOUT = 0.5  # seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acks", type=int, default=1_000_000)
    acks = parser.parse_args().acks
    serve = Broker("ws", lambda port: [program("kps", sys.executable), "serve", "--listen", f"127.0.0.1:{port}"])
    with serve.running():
        silent_recipient(serve.url)
        growth = asyncio.run(publish(serve, acks // WAVE))
    for whose, (first, last) in growth.items():
        before, after = f"{first / 1e6:.1f} MB after {WAVE:,} acks", f"{last / 1e6:.1f} MB after {acks:,}"
        print(f"{whose}: {before}, {after}: {last / first - 1:+.1%}")
    sys.exit(any(last > first * 1.05 for first, last in growth.values()))


async def publish(serve, waves):
    client = await kps.connect(serve.url)
    memory = {"publisher": [], "broker": []}
    for number in range(waves):
        acks = [client.publish_with_ack("silence", number, timeout=TIMEOUT) for _ in range(WAVE)]
        for ack in acks:
            (row,) = (await ack.wait()).values()
            assert row.status == "timeout", row
        del acks, ack, row
        memory["publisher"].append(resident_bytes(os.getpid()))
        memory["broker"].append(resident_bytes(serve.pid))
        if sys.stderr.isatty():
            print(f"\r{(number + 1) * WAVE:,} acks", end="\r", file=sys.stderr)
    await client.close()
    return {whose: (sizes[0], sizes[-1]) for whose, sizes in memory.items()}


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
        while connection.recv(1 << 16):
            pass

    threading.Thread(target=forget, daemon=True).start()


if __name__ == "__main__":
    main()
