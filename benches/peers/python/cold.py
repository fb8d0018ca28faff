"""`cold.py PEER cold URL OPTIONS`: how long a fresh interpreter needs to import a client and to connect.

`bare` imports nothing and `asyncio` runs a loop, to compare with.
"""

import sys
import time

name, _, url, _ = sys.argv[1:]
start = time.perf_counter()
if name == "nats":
    import nats
elif name == "zenoh":
    import zenoh
elif name == "kps":
    import kps
elif name == "asyncio":
    import asyncio
imported = time.perf_counter() - start


async def connect():
    start = time.perf_counter()
    if name == "nats":
        _client = await nats.connect(url)
    elif name == "kps":
        _client = await kps.connect(url)
    ready(time.perf_counter() - start)


def ready(connected):
    at = time.monotonic()
    import json

    print(json.dumps({"event": "ready", "at": at, "import": imported, "connect": connected}), flush=True)
    sys.stdin.readline()


if name == "bare":
    ready(0)
elif name == "zenoh":
    start = time.perf_counter()
    config = zenoh.Config()
    config.insert_json5("scouting/multicast/enabled", "false")
    session = zenoh.open(config)
    ready(time.perf_counter() - start)
else:
    import asyncio

    asyncio.run(connect())
