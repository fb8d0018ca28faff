"""The workloads about HTTP; they take and give what those of `workloads.py` do.

What asks is one process of Python that writes requests it has made before and counts answers, so that it costs as
little as Python can. The peer is a floor and no broker: Node's own server, which takes the body apart and answers 202,
and writes an event to every stream it has.
"""

COUNTS = {1: 20_000, 16: 60_000}
FANOUT = {"streams": 100, "connections": 16, "count": 3_000}


def http_publish_1(broker, start, _counts):
    """`POST /v1/publish/{topic}` of 128 bytes of JSON on one connection, the next after the answer."""
    return _post(broker, start, "publish", 1)


def http_publish_16(broker, start, _counts):
    """The same on 16 connections at once."""
    return _post(broker, start, "publish", 16)


def http_operations_1(broker, start, _counts):
    """`POST /v1/documents/{id}/operations` on one connection: each appends a word to what the one before it made."""
    return _post(broker, start, "operations", 1)


def http_operations_16(broker, start, _counts):
    """The same on 16 connections at once, each with a document of its own."""
    return _post(broker, start, "operations", 16)


def _post(broker, start, what, connections):
    options = {"what": what, "connections": connections, "count": COUNTS[connections]}
    with start("post", options) as client:
        client.wait("ready")
        before = broker.cpu_seconds()
        client.tell()
        said = client.wait("end")
        used = broker.cpu_seconds() - before
    return {
        "rate": said["rate"],
        "p50_us": said["p50"] * 1e6,
        "p99_us": said["p99"] * 1e6,
        "broker_us": used / said["count"] * 1e6,
    }


def http_fanout(broker, start, _counts):
    """100 streams of server-sent events of one topic, to which 16 connections publish; no event may be missing."""
    with start("streams", FANOUT) as client:
        client.wait("ready")
        before = broker.cpu_seconds()
        client.tell()
        said = client.wait("end")
        used = broker.cpu_seconds() - before
    events = FANOUT["streams"] * FANOUT["count"]
    return {"rate": said["rate"], "broker_us": used / events * 1e6}


POSTS = ["http_publish_1", "http_publish_16", "http_operations_1", "http_operations_16"]
ALL = [*POSTS, "http_fanout"]
WORKLOADS = {name: globals()[name] for name in ALL}
