"""Starting and measuring the processes of a benchmark: brokers and workers. Linux only: it reads /proc."""

import contextlib
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
TIMEOUT = 120  # seconds one workload may take before its processes are killed
FOLDER = HERE.parent / "target"  # what brokers keep is below it, unlike /tmp never in memory


def cpu_seconds(pid):
    """CPU that the living threads of a process have used, to the nanosecond (`/proc/PID/stat` counts in 10 ms)."""
    threads = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Rss:"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broken(Exception):
    """A workload that lost, reordered, crashed or hung."""


class Worker:
    """A process that says one JSON object per line and moves on when told."""

    def __init__(self, command):
        self.spawned = time.monotonic()
        self.command = command
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        self.watchdog = threading.Timer(TIMEOUT, self.process.kill)
        self.watchdog.start()

    def wait(self, event):
        """The values of `event`, once the process says it."""
        for line in self.process.stdout:
            said = json.loads(line)
            if said["event"] == event:
                return said
            if said["event"] == "broken":
                raise Broken(f"message {said['expected']} expected, {said['got']} came")
        errors = self.process.stderr.read().strip().splitlines()
        raise Broken(f"ended before «{event}»: {errors[-1] if errors else f'timeout of {TIMEOUT} s'}")

    def tell(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.watchdog.cancel()
        self.process.kill()
        self.process.communicate()


class Broker:
    """A broker on a free port of 127.0.0.1; `command` makes its command line from the port and, if it
    `keeps` something, a new folder."""

    def __init__(self, scheme, command, keeps=False):
        self.scheme, self.command, self.keeps = scheme, command, keeps

    @contextlib.contextmanager
    def running(self):
        with new_folder() if self.keeps else contextlib.nullcontext() as folder:
            yield from self._run(folder)

    def _run(self, folder):
        port = free_port()
        command = self.command(port, folder) if self.keeps else self.command(port)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid, self.url = process.pid, f"{self.scheme}://127.0.0.1:{port}"
        try:
            self._wait_for(process, port)
            yield self
        finally:
            process.terminate()
            process.wait()

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def resident_bytes(self):
        return resident_bytes(self.pid)

    def worker_url(self, _role):
        return self.url

    @staticmethod
    def _wait_for(process, port):
        for _ in range(1000):
            if process.poll() is not None:
                raise Broken(f"the broker ended with {process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.01)
        raise Broken("the broker does not listen")


class NoBroker:
    """zenoh's peers talk to each other: the publisher listens."""

    @contextlib.contextmanager
    def running(self):
        self.url = f"tcp/127.0.0.1:{free_port()}"
        yield self

    def cpu_seconds(self):
        return 0.0

    def worker_url(self, role):
        return f"listen:{self.url}" if role == "publish" else self.url


def new_folder():
    FOLDER.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="bench-", dir=FOLDER)


def program(name, beside):
    """A program installed beside the Python interpreter, else the one on the path."""
    near = pathlib.Path(beside).parent / name
    found = str(near) if near.exists() else shutil.which(name)
    if not found:
        raise Broken(f"{name} is not installed beside {beside}")
    return found


# Roles that are not `worker`'s.
SCRIPTS = {
    "cold": "cold",
    "fill": "outbox",
    "drain": "outbox",
    "live": "outbox",
    "storage": "storage",
    "batch": "compute",
    "scaling": "compute",
    "local": "local",
    "edit": "yjs",
    "load": "yjs",
    "memory": "yjs",
    "propose": "text",
    "post": "gateway",
    "streams": "gateway",
}


def worker_command(language, role, python):
    script = SCRIPTS.get(role, "worker")
    if language == "python":
        return [python, str(HERE / f"peers/python/{script}.py")]
    return ["node", str(HERE / f"peers/node/{script}.mjs")]
