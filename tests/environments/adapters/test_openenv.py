"""Environments on an OpenEnv server, which runs next to the tests."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.environments.adapters.openenv import load, texts
from cohort.errors import UsageError
from tests.environments.adapters import needs, say

pytestmark = needs("openenv")
SERVER = Path(__file__).with_name("numbers_server.py")


@contextlib.contextmanager
def serving(*arguments: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = port or free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(SERVER), str(port), *arguments])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
                break
            time.sleep(0.1)
        yield url, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("2") as (url, _):
        yield url


def test_an_episode_is_played_as_the_row_s_seed_says(url: str) -> None:
    async def main() -> None:
        maker = load(url, {"size": 3, "instructions": "Find it."})
        rows = maker.rows(False)
        assert rows == [{"prompt": "Find it.", "seed": i} for i in range(3)]
        assert not {row["seed"] for row in maker.rows(True)} & {0, 1, 2}
        number = random.Random(1).randrange(10)
        session = maker.make()
        first = await session.reset(rows[1], 5)
        assert first.content == "Find it.\n\nAnswer with number (integer).\n\nGuess a digit."
        wrong = await session.step(say(f"I say {(number + 1) % 10}"))
        assert wrong.reward == -0.1
        assert not wrong.done
        assert f"guesses: [{(number + 1) % 10}]" in wrong.observation
        right = await session.step(say(f'```json\n{{"number": {number}}}\n```'))
        assert (right.reward, right.done) == (1.0, True)
        await session.close()

    asyncio.run(main())


def test_what_is_no_action_is_told_and_moves_nothing(url: str) -> None:
    async def main() -> None:
        session = load(url, {"invalid_reward": -1.0}).make()
        await session.reset({"seed": 0}, 0)
        for text in ("no idea", '{"digit": 3}', '{"number": "x"}'):
            step = await session.step(say(text))
            assert (step.reward, step.done) == (-1.0, False)
            assert "number (integer)" in step.observation
        await session.close()

    asyncio.run(main())


def test_an_episode_waits_for_a_session_that_is_free(url: str) -> None:
    async def main() -> None:
        maker, hasty = load(url, {}), load(url, {"wait": 0.0})
        held = [maker.make(), maker.make()]
        for session in held:
            await session.reset({}, 0)
        refused = hasty.make()
        with pytest.raises(RuntimeError, match="max_concurrent_envs"):
            await refused.reset({}, 0)
        waiting = maker.make()
        coming = asyncio.create_task(waiting.reset({}, 0))
        await asyncio.sleep(0.3)
        assert not coming.done()
        await held[0].close()
        assert "Guess a digit." in (await asyncio.wait_for(coming, 20)).content
        for session in (held[1], waiting, refused):
            await session.close()

    asyncio.run(main())


def test_a_server_s_tasks_become_rows_and_its_end_fails_the_episode() -> None:
    async def main() -> None:
        with serving("4", "tasks") as (url, process):
            maker = load(url, {})
            assert [row["index"] for row in maker.rows(False)] == [0, 1, 2, 3]
            assert [(row["split"], row["index"]) for row in maker.rows(True)] == [("test", 0), ("test", 1)]
            with pytest.raises(UsageError, match="no split 'other'"):
                load(url, {"split": "other"}).rows(False)
            session = maker.make()
            await session.reset(maker.rows(False)[2], 9)
            step = await session.step(say(str(random.Random(2).randrange(10))))
            assert step.reward == 1.0
            lost = maker.make()
            await lost.reset({}, 0)
            with pytest.raises(Exception, match="close frame"):
                await lost.step(say("99"))
            await lost.close()
            process.wait()
            with pytest.raises(Exception, match=r"was lost|close frame"):
                await session.step(say("1"))
            await session.close()
            # One that begins meanwhile waits until the server is there again.
            late = maker.make()
            coming = asyncio.create_task(late.reset({}, 0))
            await asyncio.sleep(0.2)
            assert not coming.done()

        def again() -> None:
            with serving("4", "tasks", port=int(url.rsplit(":", 1)[1])):
                asyncio.run_coroutine_threadsafe(_finished(coming), loop).result(60)

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(again)
        assert "Guess a digit." in coming.result().content
        await late.close()

    asyncio.run(main())


async def _finished(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task})


def test_tools_of_a_server_are_called_until_the_policy_calls_none() -> None:
    async def main() -> None:
        with serving("2", "tools") as (url, _):
            session = load(url, {}).make()
            first = await session.reset({"prompt": "What is 2 + 3?"}, 0)
            assert first.content == "What is 2 + 3?"
            assert [tool["function"]["name"] for tool in first.tools] == ["add"]
            assert set(first.tools[0]["function"]["parameters"]["properties"]) == {"a", "b"}
            call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}
            step = await session.step(say("", tool_calls=[call]))
            assert step.observation == [{"role": "tool", "name": "add", "content": "5", "tool_call_id": "1"}]
            wrong = {"function": {"name": "subtract", "arguments": "{}"}}
            step = await session.step(say("", tool_calls=[wrong]))
            assert "error" in step.observation[0]["content"].lower()
            assert (await session.step(say("It is 5."))).done
            await session.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "expected"), [({"sise": 3}, "no option sise"), ({"size": 0}, "at least 1"), ({}, "start it first")]
)
def test_what_is_wrong_is_said(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load("127.0.0.1:9", options)


def test_a_server_that_is_no_openenv_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no OpenEnv server"):
        load(f"{url}/docs", {})


def test_observations_are_told_a_field_a_line() -> None:
    assert texts({"text": "hi", "reward": 1, "done": True, "metadata": {}}) == "hi"
    assert texts({"text": "hi", "board": [1, 2], "empty": ""}) == "text: hi\nboard: [1, 2]"
