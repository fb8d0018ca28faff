"""The targets: each compares a figure of kps with a peer's in the same run, or with a fixed bound."""

from dataclasses import dataclass


@dataclass
class Target:
    name: str
    entry: str  # language.peer.workload
    figure: str
    peer: str | None  # measured in the same run; None: the bound is absolute
    better: str  # "more" or "less"
    first: float
    then: float
    unit: str = "×"
    minus: bool = False  # subtract the peer's figure instead of dividing by it

    def judge(self, figures):
        """What was measured against what is wanted; None when this run did not measure it."""
        mine, theirs = self._figure(figures, self.entry), self._figure(figures, self.peer)
        if mine is None or (self.peer and theirs is None):
            return None
        value = mine if self.peer is None else mine - theirs if self.minus else mine / theirs
        return {
            "name": self.name,
            "measured": self._show(value),
            "value": value,
            "first": self._bound(self.first),
            "pass": self._holds(value, self.first),
            "then": self._bound(self.then),
            "pass_then": self._holds(value, self.then),
        }

    def _figure(self, figures, entry):
        values = figures.get(tuple(entry.split("."))) if entry else None
        return values and values[self.figure]

    def _holds(self, value, bound):
        return value >= bound if self.better == "more" else value <= bound

    def _show(self, value):
        return f"{value:.2f} {self.unit}"

    def _bound(self, bound):
        return f"{'≥' if self.better == 'more' else '≤'} {bound:g} {self.unit}"


TARGETS = [
    Target("Python throughput / nats-py", "python.kps.throughput", "rate", "python.nats.throughput", "more", 4, 7),
    Target("Python throughput / zenoh", "python.kps.throughput", "rate", "python.zenoh.throughput", "more", 1.4, 2.5),
    Target("Node throughput / nats", "node.kps.throughput", "rate", "node.nats.throughput", "more", 2, 3.2),
    Target("broker CPU per message / nats-server, Python", "python.kps.throughput", "broker_us",
           "python.nats.throughput", "less", 1, 0.5),
    Target("broker CPU per message / nats-server, Node", "node.kps.throughput", "broker_us",
           "node.nats.throughput", "less", 1, 0.5),
    Target("Python acks, 64 in flight / nats-py", "python.kps.acks", "rate", "python.nats.acks", "more", 2.5, 4.5),
    Target("Python acks, alone p50 / nats-py", "python.kps.acks", "p50_us", "python.nats.acks", "less", 0.65, 0.4),
    Target("Node acks, 64 in flight / ws", "node.kps.acks", "rate", "node.ws.acks", "more", 1.5, 2.5),
    Target("Node acks, alone p50 / ws", "node.kps.acks", "p50_us", "node.ws.acks", "less", 1.1, 0.9),
    Target("Python fan-out / nats-py", "python.kps.fanout", "rate", "python.nats.fanout", "more", 2.5, 4),
    Target("Node fan-out / nats", "node.kps.fanout", "rate", "node.nats.fanout", "more", 1, 1.5),
    Target("broker CPU per delivery / nats-server, Python", "python.kps.fanout", "broker_us",
           "python.nats.fanout", "less", 1, 0.5),
    Target("broker CPU per delivery / nats-server, Node", "node.kps.fanout", "broker_us",
           "node.nats.fanout", "less", 1, 0.5),
    Target("Python import", "python.kps.cold", "import_ms", None, "less", 20, 10, "ms"),
    Target("Python connect", "python.kps.cold", "connect_ms", None, "less", 3, 1.5, "ms"),
    Target("Node import", "node.kps.cold", "import_ms", None, "less", 20, 10, "ms"),
    Target("Node connect", "node.kps.cold", "connect_ms", None, "less", 3, 1.5, "ms"),
    Target("Python client's memory above an empty asyncio loop", "python.kps.cold", "resident_mb",
           "python.asyncio.cold", "less", 8, 5, "MB", minus=True),
    Target("Python client's memory above the bare interpreter", "python.kps.cold", "resident_mb",
           "python.bare.cold", "less", 8, 5, "MB", minus=True),
    Target("idle connection, memory in the broker", "python.kps.idle", "idle_kib", None, "less", 16, 6, "KiB"),
    Target("idle connections, CPU of the broker", "python.kps.idle", "idle_percent", None, "less", 0.5, 0.1, "%"),
]
