"""The workloads. Each takes a broker that runs and a function that starts workers, and gives figures by name."""

import contextlib
import time

from processes import resident_bytes

COUNTS = {
    # messages, so that the slowest peer needs a few seconds
    "python": {"throughput": 300_000, "fanout": 4_000, "acks": 20_000, "alone": 3_000, "catch_up": 1_000_000},
    "node": {"throughput": 500_000, "fanout": 10_000, "acks": 40_000, "alone": 5_000, "catch_up": 1_000_000},
}


def throughput(broker, start, counts):
    """W1: one publisher process → broker → one subscriber process."""
    return stream(broker, start, counts["throughput"])


def fanout(broker, start, counts):
    """W3: one publisher → 100 connections in two processes."""
    return stream(broker, start, counts["fanout"], subscribers=2, connections=50)


def stream(broker, start, count, subscribers=1, connections=1, topic="bench"):
    options = {"topic": topic, "count": count, "warmup": count // 10, "connections": connections}
    with contextlib.ExitStack() as stack:
        publisher = stack.enter_context(start("publish", options))
        publisher.wait("ready")
        receivers = [stack.enter_context(start("subscribe", options)) for _ in range(subscribers)]
        for receiver in receivers:
            receiver.wait("ready")
        publisher.tell()
        publisher.wait("warm")
        warm = [receiver.wait("warm") for receiver in receivers]
        broker_cpu = broker.cpu_seconds()
        publisher.tell()
        began = publisher.wait("start")
        ended = [receiver.wait("end") for receiver in receivers]
        broker_cpu = broker.cpu_seconds() - broker_cpu
        publisher.tell()
        publisher_cpu = publisher.wait("end")["cpu"] - began["cpu"]
    deliveries = count * subscribers * connections
    receiver_cpu = sum(end["cpu"] - begin["cpu"] for end, begin in zip(ended, warm, strict=True))
    return {
        "rate": deliveries / (max(end["at"] for end in ended) - began["at"]),
        "pub_us": publisher_cpu / count * 1e6,
        "sub_us": receiver_cpu / deliveries * 1e6,
        "broker_us": broker_cpu / deliveries * 1e6,
    }


def acks(broker, start, counts):
    """W2: a request and its answer through the broker, alone (p50) and 64 at once (per second)."""
    options = {"count": counts["acks"], "alone": counts["alone"], "warmup": 2_000}
    with start("answer", options) as answerer:
        answerer.wait("ready")
        with start("request", options) as requester:
            requester.wait("ready")
            requester.tell()
            said = requester.wait("end")
    return {
        "rate": said["rate"],
        "p50_us": said["p50"] * 1e6,
        "p99_us": said["p99"] * 1e6,
        "request_us": said["cpu_each"] * 1e6,
    }


def cold(_broker, start, _counts):
    """From the start of a process to its first connection; and its memory then."""
    with start("cold", {}) as worker:
        said = worker.wait("ready")
        return {
            "start_ms": (said["at"] - worker.spawned) * 1e3,
            "import_ms": said["import"] * 1e3,
            "connect_ms": said["connect"] * 1e3,
            "resident_mb": resident_bytes(worker.pid) / 1e6,
        }


IDLE_CONNECTIONS = 500
IDLE_SECONDS = 3


def idle(broker, start, _counts):
    """What a connection that does nothing costs the broker."""
    with start("idle", {"connections": IDLE_CONNECTIONS}) as worker:
        worker.wait("begin")
        before = broker.resident_bytes()
        worker.wait("ready")
        time.sleep(1)  # what connecting left behind is done
        cpu = broker.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        return {
            "idle_kib": (broker.resident_bytes() - before) / 1024 / IDLE_CONNECTIONS,
            "idle_percent": (broker.cpu_seconds() - cpu) / IDLE_SECONDS * 100,
        }


WORKLOADS = {each.__name__: each for each in (throughput, acks, fanout, cold, idle)}
