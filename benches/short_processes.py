"""200 short Python and 200 short Node processes: `.venv/bin/python benches/short_processes.py`.

Each connects, publishes, waits for `flush` and exits without closing. All must exit 0 within a
second of flushing, and everything published before the flush must arrive.
"""

import argparse
import asyncio
import json
import sys
import time

import kps

PROCESSES = 200
MESSAGES = 10  # of each process

PYTHON = """
import asyncio, sys, time, kps
async def main():
    client = await kps.connect(sys.argv[1])
    for n in range(int(sys.argv[2])):
        client.publish("short", n)
    await client.flush()
    print(time.monotonic(), flush=True)
asyncio.run(main())
"""
NODE = """
import { connect } from "kps";
const client = await connect(process.argv[1]);
for (let n = 0; n < Number(process.argv[2]); n++) client.publish("short", n);
await client.flush();
console.log(Number(process.hrtime.bigint()) / 1e9);
"""


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    results = {}
    async with kps.Server("127.0.0.1:0") as server:
        received = 0

        def count(_message):
            nonlocal received
            received += 1

        await server.subscribe("short", count)
        for language, command in {
            "Python": [sys.executable, "-c", PYTHON],
            "Node": ["node", "--input-type=module", "-e", NODE],
        }.items():
            received = 0
            limit = asyncio.Semaphore(2)
            exits = await asyncio.gather(
                *(short(limit, [*command, f"ws://{server.address}", str(MESSAGES)]) for _ in range(PROCESSES))
            )
            deadline = time.monotonic() + 5
            while received < PROCESSES * MESSAGES and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            results[language] = {
                "processes": PROCESSES,
                "exit_0": sum(code == 0 for code, _ in exits),
                "slowest_exit_ms": max(seconds for _, seconds in exits) * 1e3,
                "messages": received,
            }
    if as_json:
        print(json.dumps(results))
    for language, result in results.items() if not as_json else ():
        print(
            f"{language}: {result['exit_0']} of {PROCESSES} exited 0, the slowest {result['slowest_exit_ms']:.0f} ms "
            f"after its flush; {result['messages']:,} of {PROCESSES * MESSAGES:,} messages arrived"
        )
    return all(
        result["exit_0"] == PROCESSES
        and result["slowest_exit_ms"] < 1000
        and result["messages"] == PROCESSES * MESSAGES
        for result in results.values()
    )


async def short(limit, command):
    """Exit code, and seconds from flush to exit."""
    async with limit:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        flushed = await process.stdout.readline()
        code = await process.wait()
        return code, time.monotonic() - float(flushed or "nan")


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
