"""What `run.py` prints: a table for each workload, and that of the targets."""

INSTALL = ".venv/bin/pip install -r benches/peers/requirements.txt && npm install --prefix benches/peers"

DURABLE = [
    ("msg/s", "rate", "{:,.0f}"),
    ("µs CPU pub", "pub_us", "{:.2f}"),
    ("broker", "broker_us", "{:.2f}"),
]

STORAGE = [
    ("save p50 µs", "save_us", "{:,.1f}"),
    ("p99", "save_p99_us", "{:,.0f}"),
    ("get p50", "get_us", "{:,.1f}"),
    ("each of 100 in one call", "many_us", "{:,.1f}"),
    ("of 100 callers", "together_us", "{:,.1f}"),
]
BATCH = [("batch p50 ms", "batch_ms", "{:,.2f}"), ("worst", "worst_ms", "{:,.2f}")]
EDITS = [
    ("operations/s", "rate", "{:,.0f}"),
    ("propose to ack p50 µs", "p50_us", "{:,.0f}"),
    ("p99", "p99_us", "{:,.0f}"),
    ("µs CPU server", "broker_us", "{:,.0f}"),
]
POSTS = [
    ("requests/s", "rate", "{:,.0f}"),
    ("p50 µs", "p50_us", "{:,.0f}"),
    ("p99", "p99_us", "{:,.0f}"),
    ("µs CPU server", "broker_us", "{:.1f}"),
]
SCALING = [
    ("one, ms", "one_ms", "{:.2f}"),
    ("speed-up", "speedup", "{:.2f}"),
    ("cores", "cores", "{:.0f}"),
    ("kept busy", "busy", "{:.2f}"),
    ("used by others", "others", "{:.2f}"),
]

# The columns of each workload: heading, figure, format.
COLUMNS = {
    "throughput": [
        ("msg/s", "rate", "{:,.0f}"),
        ("µs CPU pub", "pub_us", "{:.2f}"),
        ("sub", "sub_us", "{:.2f}"),
        ("broker", "broker_us", "{:.2f}"),
    ],
    "acks": [
        ("64 in flight /s", "rate", "{:,.0f}"),
        ("alone p50 µs", "p50_us", "{:.0f}"),
        ("p99 µs", "p99_us", "{:.0f}"),
        ("µs CPU asking", "request_us", "{:.1f}"),
    ],
    "fanout": [
        ("deliveries/s", "rate", "{:,.0f}"),
        ("µs CPU pub", "pub_us", "{:.2f}"),
        ("sub", "sub_us", "{:.2f}"),
        ("broker", "broker_us", "{:.3f}"),
    ],
    "cold": [
        ("start ms", "start_ms", "{:.0f}"),
        ("import ms", "import_ms", "{:.1f}"),
        ("connect ms", "connect_ms", "{:.1f}"),
        ("resident MB", "resident_mb", "{:.1f}"),
    ],
    "durable_stored": DURABLE,
    "durable_accepted": DURABLE,
    "durable_catch_up": [
        ("msg/s", "rate", "{:,.0f}"),
        ("live msg/s", "live_rate", "{:,.0f}"),
        ("live, kept", "kept_live_rate", "{:,.0f}"),
        ("µs CPU sub", "sub_us", "{:.2f}"),
        ("live", "live_sub_us", "{:.2f}"),
        ("broker", "broker_us", "{:.2f}"),
    ],
    "durable_elsewhere": [
        ("msg/s", "rate", "{:,.0f}"),
        ("µs CPU broker", "broker_us", "{:.2f}"),
        ("beside 5,000 msg/s", "loaded_rate", "{:,.0f}"),
        ("µs CPU broker", "loaded_broker_us", "{:.2f}"),
    ],
    "durable_draining": [
        ("p99 µs", "p99_us", "{:,.0f}"),
        ("draining", "p99_draining_us", "{:,.0f}"),
        ("flooded", "p99_flooded_us", "{:,.0f}"),
        ("drained msg/s", "rate", "{:,.0f}"),
    ],
    "idle": [
        ("broker KiB each", "idle_kib", "{:.1f}"),
        ("broker CPU %", "idle_percent", "{:.2f}"),
    ],
    **{f"documents_{kind}_{writers}": EDITS for kind in ("yjs", "text") for writers in (1, 10, 100)},
    **{f"http_{what}_{connections}": POSTS for what in ("publish", "operations") for connections in (1, 16)},
    "http_fanout": [("events/s", "rate", "{:,.0f}"), ("µs CPU server", "broker_us", "{:.2f}")],
    "documents_load": [("load p50 ms", "load_ms", "{:,.1f}")],
    "documents_memory": [("server KiB each", "each_kib", "{:,.1f}")],
    "storage_memory": STORAGE,
    "storage_normal": STORAGE,
    "storage_full": STORAGE,
    "batch_small": BATCH,
    "batch_heavy": BATCH,
    "batch_bytes": BATCH,
    "own_small": BATCH,
    "own_heavy": BATCH,
    "scaling_builtin": SCALING,
    "scaling_wasm": SCALING,
    "local": [
        ("µs await", "await_us", "{:.2f}"),
        ("a task", "task_us", "{:.2f}"),
        ("no-op", "noop_us", "{:.2f}"),
        ("async no-op", "noop_async_us", "{:.2f}"),
        ("fibonacci(1000)", "fibonacci_us", "{:.2f}"),
        ("broadcast", "broadcast_us", "{:.1f}"),
    ],
    "remote": [
        ("alone p50 µs", "p50_us", "{:.0f}"),
        ("p99", "p99_us", "{:.0f}"),
        ("100 at once /s", "rate", "{:,.0f}"),
        ("p50 µs", "together_p50_us", "{:,.0f}"),
        ("p99", "together_p99_us", "{:,.0f}"),
        ("µs CPU calling", "request_us", "{:.1f}"),
    ],
}


def print_tables(workloads, figures, verdicts, failures):
    for workload, columns in COLUMNS.items():
        rows = [
            [language, peer, *(form.format(values[name]) for _, name, form in columns)]
            for (language, peer, its), values in figures.items()
            if its == workload
        ]
        if rows:
            print(f"\n{workload}: {workloads[workload].__doc__}\n")
            print_table(["", "", *(heading for heading, _, _ in columns)], rows)
    if verdicts:
        print("\ntargets, from the same run\n")
        marks = {True: "pass", False: "MISS"}, {True: "pass", False: "not yet"}
        print_table(
            ["", "measured", "rounds", "first", "", "then", ""],
            [
                [each[key] for key in ("name", "measured", "spread", "first")]
                + [marks[0][each["pass"]], each["then"], marks[1][each["pass_then"]]]
                for each in verdicts
            ],
        )
    for entry, reason in failures.items():
        print(f"\n{'.'.join(entry)} failed: {reason}")
    if any("kps" not in entry for entry in failures):
        print(f"\nThe peers are installed by\n  {INSTALL}")


def print_table(heading, rows):
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(len(heading))]
    for row in [heading, *rows]:
        first, *others = (
            cell.ljust(width) if cell[:1].isalpha() else cell.rjust(width)
            for cell, width in zip(row, widths, strict=True)
        )
        print("  " + "  ".join([first, *others]).rstrip())
