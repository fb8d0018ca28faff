"""Programs that fork, exit without closing, or are interrupted: all end, and say what they abandoned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest

import kps

SERVER = """
import asyncio, sys, kps
async def main():
    async with kps.Server("127.0.0.1:0") as server:
        log = []
        await server.subscribe("log", lambda message: log.append(message.data))
        await server.subscribe("count", lambda _: server.count_clients())
        await server.subscribe("read", lambda _: log)
        print(server.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


class Remote:
    """A server in another process, asked over the wire."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def ask(self, topic: str) -> Any:
        import asyncio

        async def main() -> Any:
            async with await kps.connect(self.url) as client:
                return await client.request(topic, None)

        return asyncio.run(main())

    def close(self) -> None:
        self.process.communicate("")


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    remote = Remote()
    yield remote
    remote.close()


def program(source: str, *args: str) -> subprocess.Popen[str]:
    source = "import asyncio, os, sys, kps\n" + textwrap.dedent(source)
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", source, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0, timeout: float = 15) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"hangs: {process.communicate()}") from None
    assert process.returncode == code, err
    return out, err


def test_a_program_that_exits_without_closing_has_published_everything(remote: Remote) -> None:
    process = program(
        """
        async def main():
            client = await kps.connect(sys.argv[1])
            await client.subscribe("t", lambda m: None)
            await client.subscribe("u")
            for number in range(1000):
                client.publish("log", ["exit", number])
        asyncio.run(main())
        """,
        remote.url,
    )
    _, err = finish(process)
    assert err == ""
    assert [entry for entry in remote.ask("read") if entry[0] == "exit"] == [["exit", n] for n in range(1000)]


def test_a_client_that_is_global_at_exit(remote: Remote) -> None:
    process = program(
        """
        client = asyncio.run(kps.connect(sys.argv[1]))
        client.publish("log", ["global", 1])
        """,
        remote.url,
    )
    _, err = finish(process)
    assert err == ""
    assert ["global", 1] in remote.ask("read")


def test_at_exit_it_says_how_many_messages_were_abandoned() -> None:
    process = program(
        """
        client = asyncio.run(kps.connect("ws://127.0.0.1:1", wait=False))
        for number in range(7):
            client.publish("t", number)
        """
    )
    start = time.monotonic()
    _, err = finish(process)
    assert "7 messages were abandoned at exit" in err
    assert time.monotonic() - start < 5


def test_exit_while_a_thread_publishes_and_a_loop_runs(remote: Remote) -> None:
    process = program(
        """
        import threading
        ready = threading.Event()
        async def main():
            client = await kps.connect(sys.argv[1])
            async def handle(message):
                await asyncio.sleep(0)
            await client.subscribe("x", handle)
            ready.set()
            while True:
                client.publish("x", 1)
                await asyncio.sleep(0)
        threading.Thread(target=asyncio.run, args=[main()], daemon=True).start()
        ready.wait()
        """,
        remote.url,
    )
    finish(process)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_gets_a_new_identity_and_the_parent_keeps_its_own(remote: Remote) -> None:
    process = program(
        """
        async def use(name):
            subscription = await client.subscribe("own." + name)
            await client.publish("own." + name, name, receipt="accepted")
            message = await asyncio.wait_for(anext(subscription), 5)
            assert message.data == name
            await client.publish("log", ["fork", name, client.id], receipt="accepted")
            await client.close()

        client = asyncio.run(kps.connect(sys.argv[1], id="parent"))
        for child in range(2):
            if os.fork() == 0:
                asyncio.run(use(f"child{child}"))
                sys.exit(0)
        asyncio.run(use("parent"))
        assert [os.wait()[1] for _ in range(2)] == [0, 0]
        """,
        remote.url,
    )
    _, err = finish(process)
    assert err == ""
    ids = {name: client_id for kind, name, *client_id in remote.ask("read") if kind == "fork"}
    assert ids["parent"] == ["parent"]
    assert set(ids) == {"parent", "child0", "child1"}
    assert len({str(client_id) for client_id in ids.values()}) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_what_was_queued_before_a_fork_stays_with_the_parent(remote: Remote) -> None:
    process = program(
        """
        client = asyncio.run(kps.connect(sys.argv[1]))
        for number in range(100):
            client.publish("log", ["queued", number])
        if os.fork() == 0:
            client.publish("log", ["queued by child", 1])
            sys.exit(0)
        os.wait()
        """,
        remote.url,
    )
    _, err = finish(process)
    assert err == ""
    log = remote.ask("read")
    assert [entry for entry in log if entry[0] == "queued"] == [["queued", n] for n in range(100)]
    assert log.count(["queued by child", 1]) == 1


def test_multiprocessing(remote: Remote, tmp_path: Any) -> None:
    script = tmp_path / "pool.py"
    script.write_text(
        textwrap.dedent(
            """
            import asyncio, multiprocessing, sys, kps

            url = sys.argv[1]
            client = asyncio.run(kps.connect(url)) if len(sys.argv) > 2 else None

            async def ask(number):
                mine = client or await kps.connect(url)
                return len(await mine.request("read", None)) >= 0 and number

            def work(number):
                return asyncio.run(ask(number))

            if __name__ == "__main__":
                for method in sys.argv[3].split(","):
                    with multiprocessing.get_context(method).Pool(3) as pool:
                        assert pool.map(work, range(20)) == list(range(20)), method
            """
        )
    )
    methods = "fork,spawn,forkserver" if hasattr(os, "fork") else "spawn"
    process = subprocess.Popen(
        [sys.executable, str(script), remote.url, "preload", methods], stdout=-1, stderr=-1, text=True
    )
    finish(process, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_server_that_preloads_the_program_and_forks_workers(remote: Remote) -> None:
    """As gunicorn --preload does: connected in the parent, used in its children."""
    process = program(
        """
        import threading
        client = asyncio.run(kps.connect(sys.argv[1]))
        async def serve(worker):
            assert await client.request("count", None) >= 1
            await client.subscribe(f"worker.{worker}", lambda message: worker)
            assert await client.request(f"worker.{worker}", None) == worker
        workers = []
        for worker in range(4):
            pid = os.fork()
            if pid == 0:
                asyncio.run(serve(worker))
                os._exit(0) if worker % 2 else sys.exit(0)
            workers.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in workers] == [0] * 4
        """,
        remote.url,
    )
    _, err = finish(process)
    assert err == ""


@pytest.mark.parametrize("where", ["in a handler", "awaiting an ack", "iterating", "idle"])
def test_ctrl_c_ends_the_program(remote: Remote, where: str) -> None:
    process = program(
        """
        async def main():
            client = await kps.connect(sys.argv[1])
            async def handle(message):
                await asyncio.Event().wait()
            await client.subscribe("hang." + client.id, handle)
            subscription = await client.subscribe("quiet")
            print("ready", flush=True)
            if sys.argv[2] == "in a handler":
                client.publish("hang." + client.id, 1)
                await asyncio.sleep(60)
            if sys.argv[2] == "awaiting an ack":
                await client.publish_with_ack("hang." + client.id, 1).wait()
            if sys.argv[2] == "iterating":
                async for message in subscription: pass
            await asyncio.sleep(60)
        asyncio.run(main())
        """,
        remote.url,
        where,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = finish(process, code=-signal.SIGINT)
    assert "KeyboardInterrupt" in err
    assert "panicked" not in err


def test_killed_clients_do_not_stay_connected(remote: Remote) -> None:
    process = program(
        """
        async def main():
            client = await kps.connect(sys.argv[1])
            print("ready", flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
        """,
        remote.url,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while remote.ask("count") > 1:
        assert time.monotonic() < deadline
