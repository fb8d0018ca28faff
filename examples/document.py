"""A text that a person and an agent write at once: the agent streams its tokens, and both see one text."""

import asyncio
import sys
import time

import kps

NAME = f"bees-{time.time_ns()}"  # a new one each time: a document stays when its writers go
TOKENS = ["Bees ", "dance ", "to ", "say ", "where ", "the ", "flowers ", "are."]


async def agree(*documents):
    """Waits until all have the same text."""
    while len({document.text for document in documents}) > 1:
        await asyncio.sleep(0.001)


async def main():
    async with await kps.connect(*sys.argv[1:], id="ann") as person, await kps.connect(*sys.argv[1:], id="bot") as bot:
        ann = await person.open_document(NAME)
        agent = await bot.open_document(NAME, author="agent")

        edited = ann.append("# Bees\n\n")
        print("at once:", ann.text.strip())
        print("at the server:", (await edited)["version"])
        await agree(ann, agent)

        async with agent.stream() as stream:
            for token in TOKENS:
                stream.write(token)
        await agree(ann, agent)
        print(ann.text)

        # Both edit the same version: one of them is rebased.
        await asyncio.gather(
            ann.replace_text("Bees\n", "The language of bees\n"), agent.append(" They do it in the dark.")
        )
        await agree(ann, agent)
        print(ann.text)

        await agent.undo()
        await agree(ann, agent)
        print("without the last sentence:", "dark" not in ann.text)

        # An agent that wants to know when others were faster.
        careful = await bot.open_document(NAME, author="careful", rebase=False)
        stale = {"id": NAME, "op_id": "1", "base_version": 'W/"1"', "edit": {"type": "append", "text": "?"}}
        conflict = asyncio.get_running_loop().create_future()
        careful.on("conflict", conflict.set_result)
        await bot.dispatch("document.edit", stale)
        event = await conflict
        print("a stale edit is a", event["event"], "and brings", len(event["missing_ops"]) > 0)

        try:
            ann.replace_text("wasps", "bees")
        except kps.RejectedError as error:
            print("not done:", error.code)
        print("not stored yet:", len(await ann.close()))


asyncio.run(main())
