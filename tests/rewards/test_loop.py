"""One event loop for what is asynchronous."""

from __future__ import annotations

import asyncio

from cohort.rewards.loop import Loop


async def here():
    return asyncio.get_running_loop()


async def fails():
    raise KeyError("it")


def test_all_calls_run_in_one_loop():
    loop = Loop()
    (first,), (second,) = loop.run([here()]), loop.run([here()])
    assert first is second
    room = asyncio.Semaphore(1)

    async def held():
        async with room:
            await asyncio.sleep(0)
            return 1

    assert loop.run([held(), held()]) == loop.run([held(), held()]) == [1, 1]


def test_where_a_loop_runs_already_it_is_another_thread_s():
    loop = Loop()

    async def notebook():
        (first,), (second,) = loop.run([here()]), loop.run([here()])
        assert first is second
        assert first is not asyncio.get_running_loop()

    asyncio.run(notebook())


def test_what_one_raises_leaves_the_others_alone():
    async def leaves():
        raise SystemExit(3)

    async def fine():
        await asyncio.sleep(0)
        return 2

    error, exit_, value = Loop().run([fails(), leaves(), fine()])
    assert (type(error), type(exit_), value) == (KeyError, SystemExit, 2)
