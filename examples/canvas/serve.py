"""Starts all of it: a kps server, the page on a port of its own, and the agent. `make canvas` builds the page first."""

import argparse
import asyncio
import functools
import http.server
import json
import pathlib
import signal
import sys
import threading
from contextlib import contextmanager

import kps

HERE = pathlib.Path(__file__).parent
PAGE = HERE / "page" / "dist"
DOCUMENT = "canvas"
START = "canvas.start"  # who publishes here has the agent write


class Files(http.server.SimpleHTTPRequestHandler):
    """The page's files, and where the page finds the bus."""

    config = b"{}"

    def do_GET(self):
        if self.path == "/config.json":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(self.config)))
            self.end_headers()
            self.wfile.write(self.config)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def page_server(address):
    """Serves the page until the end; gives its origin."""
    host, port = address.rsplit(":", 1)
    handler = functools.partial(Files, directory=PAGE)
    with http.server.ThreadingHTTPServer((host, int(port)), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}"
        server.shutdown()


async def main():
    arguments = parse_arguments()
    if not (PAGE / "page.js").exists():
        return "the page is not built: make canvas"
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with page_server(arguments.page) as origin:
        # The page comes from another origin than the bus: no other page of the browser may come in.
        async with kps.Server(arguments.listen, data=arguments.data, allowed_origins=[origin]) as server:
            where = {"server": f"http://{server.address}", "document": DOCUMENT, "start": START}
            Files.config = json.dumps(where).encode()
            agent = None
            if arguments.agent:
                agent = await asyncio.create_subprocess_exec(sys.executable, HERE / "agent.py", server.url)
            print(f"kps listens on {server.url}")
            print(f"open {origin}/?name=Ada and {origin}/?name=Bob", flush=True)
            await stopped.wait()
            if agent:
                agent.terminate()
                await agent.wait()
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:9313", help="the bus")
    parser.add_argument("--page", default="127.0.0.1:9380", help="the page")
    parser.add_argument("--data", help="the folder for what is kept; without it, in memory")
    parser.add_argument("--no-agent", dest="agent", action="store_false", help="without the agent")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
