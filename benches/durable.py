"""The workloads about messages that are kept; they take and give what those of `workloads.py` do."""

import contextlib
import pathlib
import statistics
import time

from processes import Broken, new_folder
from workloads import stream

WINDOW = 1_000  # messages that may wait for their confirmation
SECONDS = 3
LOAD = {"topic": "kept.other", "rate": 5_000, "batch": 50}
RUNS = 3
BACKLOG = 100_000
BACKLOGS = 3
QUIET = 1  # seconds after which a broker has stored what it accepted


def durable_stored(broker, start, _counts):
    """One publisher, 1,000 waiting, confirmed after fsync: `stored`, `sync_interval: always`, `appendfsync always`."""
    return _publish_kept(broker, start, "stored")


def durable_accepted(broker, start, _counts):
    """The same, confirmed before fsync: `accepted` on a topic that is stored, JetStream's and Redis' defaults."""
    return _publish_kept(broker, start, "accepted")


def _publish_kept(broker, start, receipt):
    options = {"topic": "kept.bench", "window": WINDOW, "seconds": SECONDS, "receipt": receipt}
    with start("publish_kept", options) as worker:
        began = worker.wait("start")
        broker_cpu = broker.cpu_seconds()
        ended = worker.wait("end")
        broker_cpu = broker.cpu_seconds() - broker_cpu
        kept = worker.wait("kept")
    if kept["count"] != kept["expected"]:
        raise Broken(f"{kept['expected']:,} messages were confirmed, {kept['count']:,} are kept")
    return {
        "rate": ended["count"] / (ended["at"] - began["at"]),
        "pub_us": (ended["cpu"] - began["cpu"]) / ended["count"] * 1e6,
        "broker_us": broker_cpu / ended["count"] * 1e6,
    }


def durable_catch_up(broker, start, counts):
    """A million kept messages read from the start; live delivery without history, and while they were kept."""
    count = counts["catch_up"]
    plain = stream(broker, start, counts["throughput"])
    live = stream(broker, start, count, topic="kept.bench")
    time.sleep(QUIET)
    options = {"topic": "kept.bench", "start": "all", "count": count, "warmup": count // 10, "connections": 1}
    with start("subscribe", options) as reader:
        began = reader.wait("warm")
        broker_cpu = broker.cpu_seconds()
        ended = reader.wait("end")
        broker_cpu = broker.cpu_seconds() - broker_cpu
    rate = count / (ended["at"] - began["at"])
    return {
        "rate": rate,
        "sub_us": (ended["cpu"] - began["cpu"]) / count * 1e6,
        "broker_us": broker_cpu / count * 1e6,
        "live_rate": plain["rate"],
        "live_sub_us": plain["sub_us"],
        "kept_live_rate": live["rate"],
        "slower": plain["rate"] / rate,
    }


def durable_elsewhere(broker, start, counts):
    """W1 without history, alone and beside 5,000 msg/s on another topic; only for `kps` that one has history."""

    def streams(name):
        # A topic for each: its subscriber is killed, and the broker keeps that one's queue for a while.
        runs = [stream(broker, start, counts["throughput"], topic=f"{name}.{run}") for run in range(RUNS)]
        return {figure: statistics.median(run[figure] for run in runs) for figure in ("rate", "broker_us")}

    alone = streams("alone")
    with start("load", LOAD) as load:
        loaded = streams("loaded")
        load.tell()
        load.wait("end")
    return alone | {f"loaded_{figure}": value for figure, value in loaded.items()}


def durable_draining(broker, start, _counts):
    """A live message each ms: alone, while another client's outbox sends 100,000, and while one publishes as many."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(new_folder()))
        backlogs = [
            {"path": str(folder / f"outbox-{number}"), "topic": "kept.backlog", "count": BACKLOG}
            for number in range(BACKLOGS)
        ]
        for backlog in backlogs:
            with start("fill", backlog) as filler:
                if (kept := filler.wait("kept")["count"]) != BACKLOG:
                    raise Broken(f"the outbox kept {kept:,} of {BACKLOG:,}")
        live = stack.enter_context(start("live", {"topic": "live"}))
        live.wait("ready")
        floods = [_span(start, "publish", {"topic": "kept.flood", "warmup": 0, "count": BACKLOG}) for _ in backlogs]
        drains = [_span(start, "drain", backlog) for backlog in backlogs]
        began = time.monotonic()
        time.sleep(2)
        quiet = [(began, time.monotonic())]
        live.tell()
        samples = live.wait("end")["samples"]
    p99, p99_draining, p99_flooded = (_p99(samples, spans) for spans in (quiet, drains, floods))
    return {
        "p99_us": p99 * 1e6,
        "p99_draining_us": p99_draining * 1e6,
        "p99_flooded_us": p99_flooded * 1e6,
        "slower": p99_draining / p99,
        "rate": BACKLOG / statistics.median(ended - began for began, ended in drains),
    }


def _span(start, role, options):
    """When a worker began and ended to send `options["count"]` messages."""
    with start(role, options) as worker:
        worker.wait("ready")
        time.sleep(0.5)  # its start has cost the others
        if role == "publish":
            worker.tell()
            worker.wait("warm")
        worker.tell()
        began = worker.wait("start")
        if role == "publish":
            worker.tell()
        ended = worker.wait("end")
        time.sleep(0.5)  # what it left to store
    return began["at"], ended["at"]


def _p99(samples, spans):
    taken = sorted(took for sent, took in samples if any(began <= sent <= ended for began, ended in spans))
    if len(taken) < 100:
        raise Broken(f"only {len(taken)} messages were measured")
    return taken[len(taken) * 99 // 100]


WORKLOADS = {
    each.__name__: each
    for each in (durable_stored, durable_accepted, durable_catch_up, durable_elsewhere, durable_draining)
}
