"""An agent that writes into the document as a language model would: token by token, while people write in it."""

import asyncio
import codecs
import contextlib
import io
import re
import signal
import sys

import kps

with contextlib.redirect_stdout(io.StringIO()):
    import this  # The text: it comes with Python.

PACE = 0.05  # seconds between tokens


def tokens():
    text = codecs.decode(this.s, "rot13")
    return re.findall(r"\s*\S+", f"\n{text}\n")


async def write(document, stopped):
    """All tokens, in operations that are merged as they come; conflicts are the client's to resolve."""
    async with document.stream() as stream:
        for token in tokens():
            if stopped.is_set():
                return
            stream.write(token)
            await asyncio.sleep(PACE)
    print(f"the agent is done, at version {document.version}", flush=True)


async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with await kps.connect(*sys.argv[1:]) as client:
        document = await client.open_document("canvas", author="agent")

        def too_late(event):
            # Everybody hears of everybody's conflicts.
            if event["author"] == document.author:
                print(f"the agent came too late for {event['server_version']}", flush=True)

        document.on("conflict", too_late)
        # What the agent sees, for whoever asks.
        await client.subscribe("canvas.text", lambda _: {"version": document.version, "text": document.text})
        writing = asyncio.Lock()

        async def start(_message):
            async with writing:
                await write(document, stopped)

        await client.subscribe("canvas.start", start)
        print("the agent waits for a message on canvas.start", flush=True)
        await stopped.wait()
        async with writing:
            await document.close()


asyncio.run(main())
