"""kps beside its peers, in one run on one machine: `make bench`, or `.venv/bin/python benches/run.py`.

    run.py                       everything, medians of three
    run.py --only python.acks    one language and workload; also: kps, node, throughput, durable, …
    run.py --rounds 5 --json     figures for a script

Peers and kps take turns within each round, so that both see the same machine. Ratios travel
between machines; figures do not.
"""

import argparse
import json
import statistics
import sys

import brokers
import durable
import workloads
from processes import Broken, Worker, worker_command
from targets import TARGETS
from workloads import COUNTS

WORKLOADS = workloads.WORKLOADS | durable.WORKLOADS

INSTALL = ".venv/bin/pip install -r benches/peers/requirements.txt && npm install --prefix benches/peers"

# Who runs what. `bare` and `asyncio` are no peers but floors; `without` is kps without history.
ENTRIES = [
    (language, peer, workload)
    for language, peers, workloads in [
        ("python", ["nats", "kps"], ["throughput", "acks", "fanout", "idle"]),
        ("python", ["zenoh"], ["throughput"]),
        ("python", ["bare", "asyncio", "nats", "zenoh", "kps"], ["cold"]),
        ("node", ["nats", "ws", "kps"], ["throughput", "acks", "fanout"]),
        ("node", ["bare", "nats", "ws", "kps"], ["cold"]),
        ("python", ["nats", "redis", "kps"], ["durable_stored", "durable_accepted"]),
        ("python", ["without", "kps"], ["durable_elsewhere"]),
        ("python", ["kps"], ["durable_catch_up", "durable_draining"]),
        ("node", ["kps"], ["durable_catch_up"]),
    ]
    for workload in workloads
    for peer in peers
]


def main():
    arguments = parse_arguments()
    python = arguments.python
    words = [word for word in arguments.only.split(".") if word]
    chosen = [entry for entry in ENTRIES if all(fits(word, entry) for word in words)]
    samples = {entry: [] for entry in chosen}
    failures = {}
    for number in range(arguments.rounds):
        for entry in chosen:
            show_progress(f"round {number + 1} of {arguments.rounds}: {' '.join(entry)}")
            try:
                samples[entry].append(measure(entry, python))
            except (Broken, OSError, TypeError) as error:
                failures[entry] = str(error)
    show_progress("")
    figures = {entry: medians(rounds) for entry, rounds in samples.items() if rounds}
    # A round that failed for one of them is no pair.
    rounds = [
        {entry: values[number] for entry, values in samples.items() if len(values) == arguments.rounds}
        for number in range(arguments.rounds)
    ]
    verdicts = [target.judge(figures, rounds) for target in TARGETS]
    if arguments.json:
        print(json.dumps(as_json(figures, verdicts, failures), indent=2))
    else:
        print_tables(figures, [verdict for verdict in verdicts if verdict], failures)
    return 1 if failures else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS", help="language, peer or workload, joined by dots")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="figures, targets and failures as JSON")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has kps and the peers")
    return parser.parse_args()


def fits(word, entry):
    return word in entry or (word == "durable" and entry[-1].startswith("durable"))


def measure(entry, python):
    language, peer, workload = entry
    broker = brokers.choose(peer, workload, python)
    client = "kps" if peer == "without" else peer

    def start(role, options):
        command = worker_command(language, role, python)
        return Worker([*command, client, role, broker.worker_url(role), json.dumps(options)])

    with broker.running():
        return WORKLOADS[workload](broker, start, COUNTS[language])


def medians(rounds):
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def as_json(figures, verdicts, failures):
    return {
        "figures": {".".join(entry): values for entry, values in figures.items()},
        "targets": [verdict for verdict in verdicts if verdict],
        "failures": {".".join(entry): reason for entry, reason in failures.items()},
    }


DURABLE = [
    ("msg/s", "rate", "{:,.0f}"),
    ("µs CPU pub", "pub_us", "{:.2f}"),
    ("broker", "broker_us", "{:.2f}"),
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
}


def print_tables(figures, verdicts, failures):
    for workload, columns in COLUMNS.items():
        rows = [
            [language, peer, *(form.format(values[name]) for _, name, form in columns)]
            for (language, peer, its), values in figures.items()
            if its == workload
        ]
        if rows:
            print(f"\n{workload}: {WORKLOADS[workload].__doc__}\n")
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


def show_progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
