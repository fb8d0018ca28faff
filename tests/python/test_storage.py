"""The storage's options, for a client's own and a server's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kps

KEY = bytes(range(32))


async def save(client: kps.Client, key: str, value: Any, **more: Any) -> Any:
    return (await client.dispatch("storage.save", {"key": key, "value": value}, **more)).unwrap()


async def get(client: kps.Client, key: str, **more: Any) -> Any:
    return (await client.dispatch("storage.get", {"key": key}, **more)).unwrap()["value"]


async def stat(client: kps.Client, **more: Any) -> Any:
    return (await client.dispatch("storage.stat", **more)).unwrap()


def test_a_clients_values_outlive_it(run: Callable[[Any], Any], tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "values.db"
        for given in (file, str(file), {"path": file}, tmp_path):
            async with await kps.connect("mem://", storage=given) as client:
                await save(client, str(given), {"n": 1})
        async with await kps.connect("mem://", storage=file) as client:
            listed = (await client.dispatch("storage.list")).unwrap()["items"]
            assert len(listed) == 3, "a str and a Path are one key, and a dict another"
            assert (await stat(client))["durability"] == "full"

    run(main)


def test_without_options_nothing_is_kept(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        for _ in range(2):
            async with await kps.connect("mem://") as client:
                assert (await stat(client))["durability"] == "memory"
                await save(client, "k", 1)

    run(main)


def test_a_key_encrypts_and_another_is_refused(run: Callable[[Any], Any], tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "values.db"
        secret = "a secret that nobody else reads"
        async with await kps.connect("mem://", storage={"path": file, "key": KEY}) as client:
            await save(client, "k", secret)
            assert (await stat(client))["encrypted"] is True
        assert secret.encode() not in file.read_bytes()
        for wrong in (b"x" * 32, "a passphrase", None):
            with pytest.raises(kps.UnauthorizedError, match="encrypted"):
                await kps.connect("mem://", storage={"path": file, "key": wrong})
        async with await kps.connect("mem://", storage={"path": file, "key": KEY}) as client:
            assert await get(client, "k") == secret

    run(main)


def test_a_passphrase_is_a_key_too(run: Callable[[Any], Any], tmp_path: Path) -> None:
    async def main() -> None:
        options = {"path": tmp_path / "v.db", "key": "correct horse"}
        async with await kps.connect("mem://", storage=options) as client:
            await save(client, "k", 1)
        with pytest.raises(kps.UnauthorizedError, match="another key"):
            await kps.connect("mem://", storage={**options, "key": "battery staple"})
        # Who does not wait hears it from the first call.
        async with await kps.connect("mem://", storage={**options, "key": "no"}, wait=False) as client:
            response = await client.dispatch("storage.get", {"key": "k"})
            assert response.error is not None and response.error.code == "unauthorized"

    run(main)


def test_old_versions_and_a_quota(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with await kps.connect("mem://", storage={"versions": 2, "quota": 5000}) as client:
            saved = [await save(client, "k", n) for n in range(4)]
            history = (await client.dispatch("storage.history", {"key": "k"})).unwrap()["versions"]
            assert [version["etag"] for version in history] == [one["etag"] for one in reversed(saved[1:])]
            with pytest.raises(kps.QuotaExceededError):
                await save(client, "large", b"x" * 5000)
            assert (await stat(client))["quota"] == 5000

    run(main)


def test_compression_and_durability(run: Callable[[Any], Any], tmp_path: Path) -> None:
    async def main() -> None:
        sizes = []
        for compress in (False, True):
            file = tmp_path / f"{compress}.db"
            options: Any = {"path": file, "compress": compress, "durability": "normal"}
            async with await kps.connect("mem://", storage=options) as client:
                await save(client, "k", b"kps " * 200_000)
                told = await stat(client)
                assert (told["compressed"], told["durability"]) == (compress, "normal")
                assert await get(client, "k") == b"kps " * 200_000
            sizes.append(file.stat().st_size)
        assert sizes[1] < sizes[0] / 4

    run(main)


def test_limits(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with await kps.connect("mem://", storage={"max_key": 4, "max_value": 1000, "max_inline": 500}) as client:
            for key, value in (("longer", 1), ("k", b"x" * 1001)):
                with pytest.raises(kps.TooLargeError):
                    await save(client, key, value)
            await save(client, "k", b"x" * 1000)
            with pytest.raises(kps.TooLargeError):
                await get(client, "k")

    run(main)


WRONG: list[tuple[Any, str]] = [
    ({"quotas": 1}, "quotas"),
    ({"maxValue": 1}, "maxValue"),
    ({"quota": -1}, "quota"),
    ({"versions": "many"}, "versions"),
    ({"compress": 1}, "compress"),
    ({"durability": "never"}, "durability"),
    ({"key": b"short"}, "key"),
    ({"key": ""}, "key"),
    ({"max_value": 0}, "max_value"),
    ({"path": ""}, "path"),
]


@pytest.mark.parametrize(("options", "name"), WRONG)
def test_a_wrong_option_is_named(options: Any, name: str, run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        with pytest.raises(kps.InvalidArgumentError, match=f"storage: .*{name}"):
            await kps.connect("mem://", storage=options)
        with pytest.raises(kps.InvalidArgumentError, match=f"storage: .*{name}"):
            await kps.Server("127.0.0.1:0", storage=options).start()

    run(main)


def test_what_is_no_storage_is_a_type_error(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        for wrong in (7, ["a"], {"path": 7}):
            with pytest.raises(TypeError, match="storage"):
                await kps.connect("mem://", storage=wrong)  # type: ignore[arg-type]

    run(main)


def test_a_server_keeps_values_as_its_options_say(run: Callable[[Any], Any], tmp_path: Path) -> None:
    async def main() -> None:
        options: Any = {"key": "words", "versions": 1}
        async with (
            kps.Server("127.0.0.1:0", data=tmp_path, storage=options) as server,
            await kps.connect(server.url) as client,
        ):
            await save(client, "k", "a secret value", target="server")
            told = await stat(client, target="server")
            assert (told["encrypted"], told["versions"], told["durability"]) == (True, 1, "full")
        with pytest.raises(kps.UnauthorizedError):
            await kps.Server("127.0.0.1:0", data=tmp_path, storage={"key": "other words"}).start()
        with sqlite3.connect(tmp_path / "values.db") as file:
            assert file.execute("SELECT count(*) FROM items").fetchone() == (1,)
        async with kps.Server("127.0.0.1:0", data=tmp_path, storage=options) as server:
            assert await get(server, "k") == "a secret value"

    run(main)


def test_a_servers_storage_may_be_elsewhere_or_in_memory(run: Callable[[Any], Any], tmp_path: Path) -> None:
    async def main() -> None:
        async with kps.Server("127.0.0.1:0", data=tmp_path / "data", storage=tmp_path / "own.db") as server:
            await save(server, "k", 1)
        assert (tmp_path / "own.db").exists() and not (tmp_path / "data/values.db").exists()
        async with kps.Server("127.0.0.1:0", storage={"quota": 10}) as server:
            told = await stat(server)
            assert (told["durability"], told["quota"]) == ("memory", 10)

    run(main)


def test_one_process_has_the_file(run: Callable[[Any], Any], tmp_path: Path) -> None:
    async def main() -> None:
        async with await kps.connect("mem://", storage=tmp_path / "v.db"):
            with pytest.raises(kps.StoreFailedError):
                await kps.connect("mem://", storage=tmp_path / "v.db")
        async with await kps.connect("mem://", storage=tmp_path / "v.db") as client:
            await save(client, "k", 1)

    run(main)


def test_the_cloud_is_for_the_program_that_has_the_storage(run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        configure = ("storage.configure_cloud", {"url": "http://127.0.0.1:1", "auth_token": "t"})
        async with kps.Server("127.0.0.1:0") as server, await kps.connect(server.url) as client:
            refused = await client.dispatch(*configure, target="server")
            assert refused.error is not None and refused.error.code == "unauthorized"
            for own in (client, server):
                configured = (await own.dispatch(*configure)).unwrap()
                assert configured == {"configured": True, "reachable": False}
                assert (await stat(own))["cloud"]["url"] == "http://127.0.0.1:1"

    run(main)
