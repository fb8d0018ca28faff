"""kps beside its peers, in one run on one machine: `make bench`, or `.venv/bin/python benches/run.py`.

    run.py                       everything, medians of three
    run.py --only python.acks    one language and workload; also: kps, node, throughput, durable, calls, documents, http
    run.py --rounds 5 --json     figures for a script

Peers and kps take turns within each round, so that both see the same machine. Ratios travel
between machines; figures do not.
"""

import argparse
import json
import statistics
import sys

import brokers
import capabilities
import documents
import durable
import gateway
import workloads
from processes import Broken, Worker, worker_command
from tables import print_tables
from targets import TARGETS
from workloads import COUNTS

WORKLOADS = workloads.WORKLOADS | durable.WORKLOADS | capabilities.WORKLOADS | documents.WORKLOADS | gateway.WORKLOADS

STORAGE = ["storage_memory", "storage_normal", "storage_full"]
BATCHES = ["batch_small", "batch_heavy", "batch_bytes", "own_small", "own_heavy"]

# Who runs what. `bare`, `asyncio` and `node_http` are no peers but floors; `without` is kps without history.
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
        ("python", ["sqlite3", "aiosqlite", "kps"], STORAGE),
        ("node", ["better_sqlite3", "kps"], STORAGE),
        ("python", ["pool", "kps"], BATCHES),
        ("node", ["piscina", "kps"], BATCHES),
        ("python", ["kps"], ["scaling_builtin", "scaling_wasm", "local"]),
        ("node", ["kps"], ["scaling_builtin", "scaling_wasm", "local"]),
        ("python", ["nats", "kps"], ["remote"]),
        ("node", ["nats", "kps"], ["remote"]),
        ("node", ["hocuspocus", "y_websocket", "kps"], documents.YJS),
        ("python", ["kps"], documents.TEXT),
        ("python", ["node_http", "kps"], gateway.ALL),
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
        print_tables(WORKLOADS, figures, [verdict for verdict in verdicts if verdict], failures)
    return 1 if failures else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS", help="language, peer or workload, joined by dots")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="figures, targets and failures as JSON")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has kps and the peers")
    return parser.parse_args()


def fits(word, entry):
    return word in entry or word == entry[-1].split("_")[0] or (word == "calls" and entry[-1] in capabilities.WORKLOADS)


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


def show_progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
