"""Who runs which broker, and what makes each of them keep messages as a workload wants it."""

import pathlib

import capabilities
from processes import HERE, Broken, Broker, NoBroker, program

KEPT = "kept.>"  # the topics that kps keeps


def choose(peer, workload, python):
    """The broker of this peer for this workload."""

    if workload in capabilities.ALONE:
        return NoBroker()

    def nats(port, *options):
        return [program("nats-server", python), "-a", "127.0.0.1", "-p", str(port), *options]

    def jetstream(always):
        def command(port, folder):
            config = pathlib.Path(folder, "nats.conf")
            sync = "sync_interval: always" if always else ""
            config.write_text(f'jetstream {{ store_dir: "{folder}"\n{sync} }}\n')
            return nats(port, "-c", str(config))

        return Broker("nats", command, keeps=True)

    def redis(fsync):
        def command(port, folder):
            listen = ["--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
            keep = ["--save", "", "--appendonly", "yes", "--appendfsync", fsync]
            try:
                return [program("redis-server", python), *listen, *keep]
            except Broken:
                raise Broken("redis-server is not installed (on Debian: apt-get install redis-server)") from None

        return Broker("redis", command, keeps=True)

    def kps(port, *options):
        return [program("kps", python), "serve", "--listen", f"127.0.0.1:{port}", *options]

    def yjs(port):
        return ["node", str(HERE / "peers/node/yjs_server.mjs"), peer, str(port)]

    plain = {
        "nats": lambda: Broker("nats", nats),
        "kps": lambda: Broker("ws", kps),
        "without": lambda: Broker("ws", kps),
        "ws": lambda: Broker("ws", lambda port: ["node", str(HERE / "peers/node/relay.mjs"), str(port)]),
        "hocuspocus": lambda: Broker("ws", yjs),
        "y_websocket": lambda: Broker("ws", yjs),
        "node_http": lambda: Broker("http", lambda port: ["node", str(HERE / "peers/node/http_server.mjs"), str(port)]),
    }
    durable = {
        "nats": lambda: jetstream(always=workload == "durable_stored"),
        "redis": lambda: redis("always" if workload == "durable_stored" else "everysec"),
        "kps": lambda: Broker("ws", lambda port, folder: kps(port, "--data", folder, "--history", KEPT), keeps=True),
    }
    makers = plain | durable if workload.startswith("durable") else plain
    return makers.get(peer, NoBroker)()
