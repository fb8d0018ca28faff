"""The workloads about live documents; they take and give what those of `workloads.py` do.

Yjs editors run in one process of Node, each with its own unmodified provider and connection; the servers keep
documents in memory. Text documents have no peer: these are kps' own figures, from Python.
"""

import time

OPERATIONS = {1: 5_000, 10: 5_000, 100: 2_000}
LOAD = {"operations": 100_000, "loads": 5}
MEMORY = {"documents": 500, "size": 2_000}


def documents_yjs_1(broker, start, _counts):
    """One Yjs editor writes a word and waits until another one has it, then the next word."""
    return _edit(broker, start, "edit", 1)


def documents_yjs_10(broker, start, _counts):
    """The same by 10 editors of one document at once."""
    return _edit(broker, start, "edit", 10)


def documents_yjs_100(broker, start, _counts):
    """The same by 100 editors of one document at once."""
    return _edit(broker, start, "edit", 100)


def documents_text_1(broker, start, _counts):
    """One client of a text edits it and waits for the ack, then edits again."""
    return _edit(broker, start, "propose", 1)


def documents_text_10(broker, start, _counts):
    """The same by 10 clients of one text at once: most edits meet a conflict and are rebased."""
    return _edit(broker, start, "propose", 10)


def documents_text_100(broker, start, _counts):
    """The same by 100 clients of one text at once."""
    return _edit(broker, start, "propose", 100)


def _edit(broker, start, role, writers):
    options = {"writers": writers, "operations": OPERATIONS[writers]}
    before = broker.cpu_seconds()
    with start(role, options) as editors:
        said = editors.wait("end")
        used = broker.cpu_seconds() - before
    return {
        "rate": said["rate"],
        "p50_us": said["p50"] * 1e6,
        "p99_us": said["p99"] * 1e6,
        # With the editors' coming, and a tenth more operations to get warm.
        "broker_us": used / (options["operations"] * 1.1) * 1e6,
    }


def documents_load(_broker, start, _counts):
    """A Yjs document that 100,000 operations wrote: how long a newcomer waits for it."""
    with start("load", LOAD) as editors:
        return {"load_ms": editors.wait("end")["p50"] * 1e3}


def documents_memory(broker, start, _counts):
    """What an open Yjs document of 2 KB with one editor takes in the server, its connection included."""
    with start("memory", MEMORY) as editors:
        editors.wait("begin")
        before = broker.resident_bytes()
        editors.tell()
        editors.wait("ready")
        time.sleep(1)  # what opening left behind is done
        return {"each_kib": (broker.resident_bytes() - before) / 1024 / MEMORY["documents"]}


YJS = ["documents_yjs_1", "documents_yjs_10", "documents_yjs_100", "documents_load", "documents_memory"]
TEXT = ["documents_text_1", "documents_text_10", "documents_text_100"]
WORKLOADS = {name: globals()[name] for name in YJS + TEXT}
