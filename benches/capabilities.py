"""The workloads about calls of capabilities; they take and give what those of `workloads.py` do.

Most need no broker: one process calls its own capabilities, and its peer is a library in the same kind of process.
"""

import os
import pathlib

from processes import new_folder

# Calls of each kind that one worker measures; fewer where each waits for a disk.
CALLS = {"memory": 5_000, "normal": 3_000, "full": 300}
MANY = 100  # keys saved together, by one call and by as many
CORES = len(os.sched_getaffinity(0))
BATCHES = {"small": 200, "heavy": 5}


def storage_memory(_broker, start, _counts):
    """A JSON value of 1 KB saved and read back, in memory: one by one, 100 in a call, 100 callers."""
    return _storage(start, "memory")


def storage_normal(_broker, start, _counts):
    """The same in a file, WAL and synchronous=NORMAL: a power failure may take the last saves with it."""
    return _storage(start, "normal")


def storage_full(_broker, start, _counts):
    """The same in a file, WAL and synchronous=FULL: fsync has returned before a save has."""
    return _storage(start, "full")


def _storage(start, durability):
    with new_folder() as folder:
        path = None if durability == "memory" else str(pathlib.Path(folder, "storage"))
        options = {"path": path, "durability": durability, "calls": CALLS[durability], "many": MANY}
        with start("storage", options) as worker:
            said = worker.wait("end")
    names = ("save", "get", "many", "together")
    return {f"{name}_us": said[name] * 1e6 for name in names} | {"save_p99_us": said["save_p99"] * 1e6}


def batch_small(_broker, start, _counts):
    """100 times fibonacci(20), built into kps and written in the language elsewhere: one batch, ms."""
    return _batch(start, "small", "fibonacci")


def batch_heavy(_broker, start, _counts):
    """100 times is_prime of a 512-bit prime, built into kps and written in the language elsewhere: one batch, ms."""
    return _batch(start, "heavy", "is_prime")


def batch_bytes(_broker, start, _counts):
    """100 times SHA-256 of 256 KiB, which the workers must be given: one batch, ms."""
    return _batch(start, "heavy", "hash_sha256")


def own_small(_broker, start, _counts):
    """100 times a function of the program's own that adds two numbers, in its workers: one batch, ms."""
    return _batch(start, "small", "add")


def own_heavy(_broker, start, _counts):
    """100 times a function of the program's own that takes some 5 ms, in its workers: one batch, ms."""
    return _batch(start, "heavy", "spin")


def _batch(start, weight, task):
    with start("batch", {"task": task, "batches": BATCHES[weight], "cores": CORES}) as worker:
        said = worker.wait("end")
    return {"batch_ms": said["p50"] * 1e3, "worst_ms": said["worst"] * 1e3}


def scaling_builtin(_broker, start, _counts):
    """is_prime of 512-bit primes: one after another, and all at once on all cores."""
    return _scaling(start, "builtin")


def scaling_wasm(_broker, start, _counts):
    """examples/wasm/mandelbrot.wasm: one run after another, and all at once on all cores."""
    return _scaling(start, "wasm")


def _scaling(start, kind):
    with start("scaling", {"kind": kind, "cores": CORES}) as worker:
        began, busy = worker.wait("begin"), _busy_seconds()
        said = worker.wait("end")
        others = _busy_seconds() - busy - (said["cpu"] - began["cpu"])
    return {
        "cores": CORES,
        "speedup": said["speedup"],
        "share": said["speedup"] / CORES,
        "one_ms": said["one_ms"],
        "busy": said["busy"],
        "others": max(0.0, others / (said["at"] - began["at"])),
    }


def _busy_seconds():
    """CPU that everything on this machine has used."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _wait, irq, soft, *_ = map(int, stat.readline().split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def local(_broker, start, _counts):
    """One call after another in one process, without a server; `await` is what the language needs for the same."""
    with start("local", {"calls": 10_000}) as worker:
        said = worker.wait("end")
    return {f"{name}_us": value * 1e6 for name, value in said["p50"].items()}


TOGETHER = 100


def remote(_broker, start, counts):
    """A call that another process answers, through the broker: alone (p50, p99), and 100 at once (per second)."""
    options = {"count": counts["acks"], "alone": counts["alone"], "warmup": 2_000, "together": TOGETHER}
    with start("offer", options) as provider:
        provider.wait("ready")
        with start("call", options) as caller:
            caller.wait("ready")
            caller.tell()
            said = caller.wait("end")
    return {
        "rate": said["rate"],
        "p50_us": said["p50"] * 1e6,
        "p99_us": said["p99"] * 1e6,
        "together_p50_us": said["together_p50"] * 1e6,
        "together_p99_us": said["together_p99"] * 1e6,
        "request_us": said["cpu_each"] * 1e6,
    }


ALL = (
    *(storage_memory, storage_normal, storage_full),
    *(batch_small, batch_heavy, batch_bytes, own_small, own_heavy),
    *(scaling_builtin, scaling_wasm, local, remote),
)
WORKLOADS = {each.__name__: each for each in ALL}

# Those without a broker.
ALONE = WORKLOADS.keys() - {"remote"}
