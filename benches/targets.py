"""The targets: each compares a figure of kps with a peer's in the same run, or with a fixed bound."""

from dataclasses import dataclass


@dataclass
class Target:
    name: str
    figure: str  # language.workload.figure
    peer: str | None  # measured in the same run; None: the bounds are absolute
    better: str  # "more" or "less"
    first: float
    then: float
    unit: str = "×"  # any other unit: the peer's figure is subtracted, not divided by

    def judge(self, figures, rounds):
        """What was measured against what is wanted; None when this run did not measure it."""
        value = self._value(figures)
        if value is None:
            return None
        each = [one for one in map(self._value, rounds) if one is not None]
        return {
            "name": self.name,
            "value": value,
            "measured": f"{value:.2f} {self.unit}" + (f" {self.peer}" if self.peer else ""),
            "spread": f"{min(each):.2f}–{max(each):.2f}" if each else "",
            "first": self._bound(self.first),
            "pass": self._holds(value, self.first),
            "then": self._bound(self.then),
            "pass_then": self._holds(value, self.then),
        }

    def _value(self, figures):
        mine, theirs = self._measured(figures, "kps"), self._measured(figures, self.peer)
        if mine is None or (self.peer and theirs is None):
            return None
        return mine / theirs if self.unit == "×" else mine - (theirs or 0)

    def _measured(self, figures, peer):
        language, workload, figure = self.figure.split(".")
        values = figures.get((language, peer, workload))
        return values and values[figure]

    def _holds(self, value, bound):
        return value >= bound if self.better == "more" else value <= bound

    def _bound(self, bound):
        return f"{'≥' if self.better == 'more' else '≤'} {bound:g}"


TARGETS = [
    Target("Python throughput", "python.throughput.rate", "nats", "more", 4, 7),
    Target("Python throughput", "python.throughput.rate", "zenoh", "more", 1.4, 2.5),
    Target("Node throughput", "node.throughput.rate", "nats", "more", 2, 3.2),
    Target("broker CPU per message, Python", "python.throughput.broker_us", "nats", "less", 1, 0.5),
    Target("broker CPU per message, Node", "node.throughput.broker_us", "nats", "less", 1, 0.5),
    Target("Python acks, 64 in flight", "python.acks.rate", "nats", "more", 2.5, 4.5),
    Target("Python ack alone, p50", "python.acks.p50_us", "nats", "less", 0.65, 0.4),
    Target("Node acks, 64 in flight", "node.acks.rate", "ws", "more", 1.5, 2.5),
    Target("Node ack alone, p50", "node.acks.p50_us", "ws", "less", 1.1, 0.9),
    Target("Python fan-out", "python.fanout.rate", "nats", "more", 2.5, 4),
    Target("Node fan-out", "node.fanout.rate", "nats", "more", 1, 1.5),
    Target("broker CPU per delivery, Python", "python.fanout.broker_us", "nats", "less", 1, 0.5),
    Target("broker CPU per delivery, Node", "node.fanout.broker_us", "nats", "less", 1, 0.5),
    Target("Python import", "python.cold.import_ms", None, "less", 20, 10, "ms"),
    Target("Python connect", "python.cold.connect_ms", None, "less", 3, 1.5, "ms"),
    Target("Node import", "node.cold.import_ms", None, "less", 20, 10, "ms"),
    Target("Node connect", "node.cold.connect_ms", None, "less", 3, 1.5, "ms"),
    Target("Python client's memory above", "python.cold.resident_mb", "bare", "less", 8, 5, "MB"),
    Target("Python client's memory above", "python.cold.resident_mb", "asyncio", "less", 8, 5, "MB"),
    Target("idle connection in the broker", "python.idle.idle_kib", None, "less", 16, 6, "KiB"),
    Target("idle connections, broker's CPU", "python.idle.idle_percent", None, "less", 0.5, 0.1, "%"),
    Target("durable publish, after fsync", "python.durable_stored.rate", "nats", "more", 1, 3),
    Target("durable publish, after fsync", "python.durable_stored.rate", "redis", "more", 1, 3),
    Target("durable publish, before fsync", "python.durable_accepted.rate", "nats", "more", 1, 3),
    Target("durable publish, before fsync", "python.durable_accepted.rate", "redis", "more", 1, 3),
    Target("Python live rate by catch-up's", "python.durable_catch_up.slower", None, "less", 1.5, 1, "× as fast"),
    Target("Node live rate by catch-up's", "node.durable_catch_up.slower", None, "less", 1.5, 1, "× as fast"),
    Target("throughput, history elsewhere", "python.durable_elsewhere.rate", "without", "more", 0.95, 1),
    Target("throughput, storing elsewhere", "python.durable_elsewhere.loaded_rate", "without", "more", 0.9, 0.95),
    Target("broker CPU, history elsewhere", "python.durable_elsewhere.broker_us", "without", "less", 1.05, 1),
    Target("live p99 beside a draining outbox", "python.durable_draining.slower", None, "less", 2, 1.2, "× normal"),
    *(
        Target(
            f"{language} storage {what}, {durability}",
            f"{language.lower()}.storage_{durability}.{figure}_us",
            peer,
            "less",
            1.3,
            1,
        )
        for language, peer in [("Python", "sqlite3"), ("Node", "better_sqlite3")]
        for durability in ("full", "normal", "memory")
        for what, figure in [("save", "save"), ("get", "get"), ("save of 100", "many"), ("100 saves", "together")]
    ),
    Target("Python batch of 100 small tasks", "python.batch_small.batch_ms", None, "less", 1, 0.2, "ms"),
    Target("Node batch of 100 small tasks", "node.batch_small.batch_ms", None, "less", 1, 0.2, "ms"),
    *(
        Target(f"{language} {what}", f"{language.lower()}.{workload}.batch_ms", peer, "less", 1, 0.5)
        for language, peer in [("Python", "pool"), ("Node", "piscina")]
        for what, workload in [
            ("100 small tasks", "batch_small"),
            ("100 heavy tasks", "batch_heavy"),
            ("100 hashes of 256 KiB", "batch_bytes"),
            ("100 small functions", "own_small"),
            ("100 heavy functions", "own_heavy"),
        ]
    ),
    *(
        Target(
            f"{language} speed-up per core, {kind}",
            f"{language.lower()}.scaling_{kind}.share",
            None,
            "more",
            0.9,
            0.95,
            "× cores",
        )
        for language in ("Python", "Node")
        for kind in ("builtin", "wasm")
    ),
    *(
        Target(f"{language} {what}", f"{language.lower()}.local.{figure}_us", None, "less", first, then, "µs")
        for language in ("Python", "Node")
        for what, figure, first, then in [
            ("local no-op", "noop", 8, 3),
            ("local fibonacci(1000)", "fibonacci", 50, 20),
            ("local broadcast", "broadcast", 100, 30),
        ]
    ),
    *(
        Target(f"{language} remote call, {what}", f"{language.lower()}.remote.{figure}", "nats", better, 1, then)
        for language in ("Python", "Node")
        for what, figure, better, then in [
            ("p50", "p50_us", "less", 0.7),
            ("p99", "p99_us", "less", 0.7),
            ("100 at once", "rate", "more", 2),
        ]
    ),
    *(
        Target(f"Yjs document, {what}", f"node.documents_{figure}", peer, better, 1, then)
        for peer in ("hocuspocus", "y_websocket")
        for what, figure, better, then in [
            *(
                (f"{writers} writers, {name}", f"yjs_{writers}.{figure}", better, then)
                for writers in (1, 10, 100)
                for name, figure, better, then in [
                    ("operations", "rate", "more", 1.5),
                    ("p50", "p50_us", "less", 0.7),
                    ("p99", "p99_us", "less", 0.7),
                    ("server's CPU", "broker_us", "less", 0.7),
                ]
            ),
            ("load", "load.load_ms", "less", 0.7),
            ("memory", "memory.each_kib", "less", 0.5),
        ]
    ),
]
