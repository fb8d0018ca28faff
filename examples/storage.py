"""A film larger than any message: from a file into the server's storage, and back into a file on another machine."""

import asyncio
import hashlib
import sys
import tempfile
from pathlib import Path

import kps

SIZE = 20 << 20


async def main():
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, "film.mp4")
        film.write_bytes(bytes(SIZE))
        async with await kps.connect(*sys.argv[1:]) as studio, await kps.connect(*sys.argv[1:]) as cinema:
            seen = []
            saved = await studio.storage.save(
                "film", film, content_type="video/mp4", target="server", on_progress=lambda *step: seen.append(step)
            )
            print("saved", saved["size"], "bytes of", saved["content_type"])
            print("the last that was told:", *seen[-1])

            await cinema.storage.get_to("film", f"{folder}/copy.mp4", target="server")
            print("the copy is the same:", Path(folder, "copy.mp4").read_bytes() == film.read_bytes())

            digest = hashlib.sha256()
            async for piece in await cinema.storage.stream("film", target="server"):
                digest.update(piece)
            print("read without a file:", digest.hexdigest()[:16])

            async def camera():
                yield b"the first scene"
                raise RuntimeError("the camera fell")

            try:
                await studio.storage.save("film", camera(), target="server")
            except RuntimeError as error:
                now = await cinema.storage.stream("film", target="server")
                print(f"{error}; the film is as it was:", now.etag == saved["etag"])

        # A client's own storage is in memory, or in a file that says what it holds to nobody without its key.
        own = {"path": f"{folder}/notes.db", "key": "correct horse battery staple", "versions": 5}
        async with await kps.connect("mem://", storage=own) as writer:
            await writer.storage.save("note", "remember the milk")
        try:
            await kps.connect("mem://", storage={**own, "key": "another one"})
        except kps.UnauthorizedError as error:
            print("another key:", error.code)


asyncio.run(main())
