"""`compute.py PEER ROLE URL OPTIONS`: batches of 100 tasks, and what all cores win over one.

kps takes its built-in tasks where it has them, and else the program's functions in worker processes
(`isolated=True`); `pool` is `ProcessPoolExecutor.map` with the functions of `tasks.py`.
"""

import concurrent.futures
import json
import pathlib
import sys
import time

import tasks
import uvloop
from worker import cpu_seconds, middle, say, told

WARMUP = 2
WASM = pathlib.Path(__file__).parents[3] / "examples/wasm/mandelbrot.wasm"


class Kps:
    async def open(self, _workers):
        import kps

        self.client = await kps.connect("mem://")

    async def own(self, function):
        """Makes it a task that runs in worker processes."""
        await self.client.register_task(function.__name__, function, isolated=True)

    async def batch(self, task, items):
        given = {"tasks": [{"task": task, "data": item} for item in items]}
        response = await self.client.dispatch("compute.batch", given, timeout=100)
        return [each["data"]["result"] for each in response.unwrap()["results"]]

    async def one(self, task, data):
        given = {"task": task, "data": data}
        return (await self.client.dispatch("compute.execute", given, timeout=100)).unwrap()["result"]

    async def close(self):
        await self.client.close()

    async def load(self, name, wasm):
        (await self.client.dispatch("compute.load", {"name": name, "wasm": wasm})).unwrap()


class Pool:
    async def open(self, workers):
        self.workers = workers
        self.executor = concurrent.futures.ProcessPoolExecutor(workers)

    async def own(self, _function):
        """It runs any function."""

    async def batch(self, task, items):
        # Small tasks travel by the dozen: as many chunks as `multiprocessing.Pool.map` would make.
        chunk = len(items) // (4 * self.workers) if task in ("fibonacci", "add") else 1
        return list(self.executor.map(tasks.FUNCTIONS[task], items, chunksize=chunk))

    async def close(self):
        self.executor.shutdown()


async def batch(peer, options):
    task = options["task"]
    await peer.open(options["cores"])
    if task in tasks.OWN:
        await peer.own(tasks.FUNCTIONS[task])
    items = [tasks.GIVEN[task]] * tasks.ITEMS
    expected = [tasks.FUNCTIONS[task](items[0])] * tasks.ITEMS
    took = []
    for _ in range(WARMUP + options["batches"]):
        start = time.perf_counter()
        results = await peer.batch(task, items)
        took.append(time.perf_counter() - start)
        if task == "is_prime":
            results = [each["prime"] if isinstance(each, dict) else each for each in results]
        assert results == expected, "a task gave another result"
    # Workers that outlive this process would hold its output open.
    await peer.close()
    took = sorted(took[WARMUP:])
    say("end", p50=middle(took), worst=took[-1])
    await told()


PAIRS = 5


async def scaling(peer, options):
    """The same work one after another and all at once, in turns."""
    await peer.open(options["cores"])
    if options["kind"] == "wasm":
        await peer.load("work", WASM.read_bytes())
        task, data, count = "work", {"width": 64, "height": 64, "steps": 500}, 8 * options["cores"]
    else:
        task, data, count = "is_prime", tasks.PRIME, 128 * options["cores"]

    async def spread():
        await peer.batch(task, [data] * count)

    async def alone():
        for _ in range(count):
            await peer.one(task, data)

    async def measure(work):
        start, cpu = time.perf_counter(), cpu_seconds()
        await work()
        return time.perf_counter() - start, cpu_seconds() - cpu

    await measure(spread)
    say("begin")
    pairs = [(await measure(alone), await measure(spread)) for _ in range(PAIRS)]
    say(
        "end",
        speedup=middle(sorted(alone / spread for (alone, _), (spread, _) in pairs)),
        busy=middle(sorted(cpu / took for _, (took, cpu) in pairs)),
        one_ms=middle(sorted(took / count for (took, _), _ in pairs)) * 1e3,
    )
    await told()


def main():
    name, role, _, options = sys.argv[1:]
    peer = {"kps": Kps, "pool": Pool}[name]()
    uvloop.run({"batch": batch, "scaling": scaling}[role](peer, json.loads(options)))


if __name__ == "__main__":
    main()
