"""An environment of verifiers for tests: one agent thinks of a digit, another guesses it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf


class DuelTask(vf.Task[vf.TaskData]):
    pass


class Duels(vf.Taskset[DuelTask, vf.TasksetConfig]):
    INFINITE = True

    def load(self) -> Iterator[DuelTask]:
        for i in itertools.count():
            yield DuelTask(vf.TaskData(name=f"duel {i}", prompt=None), self.config.task)


class DuelConfig(vf.EnvConfig):
    thinker: vf.AgentConfig = vf.AgentConfig()
    guesser: vf.AgentConfig = vf.AgentConfig()


class Duel(vf.Env[DuelConfig]):
    async def run(self, task: Any, agents: Any) -> None:
        async with agents.thinker.interaction(task) as thinker, agents.guesser.interaction(task) as guesser:
            number = (await thinker.turn("Think of a digit.")).last_reply
            if number == "boom":
                raise ValueError("this is no digit")
            told, won = "Guess the digit.", False
            for _ in range(3):
                guess = await guesser.turn(told)
                if guess.terminated or guess.last_reply == number:
                    won = not guess.terminated
                    break
                told = "larger" if guess.last_reply < number else "smaller"
        thinker.trace.record_reward("kept", float(not won))
        guesser.trace.record_reward("won", float(won))


__all__ = ["Duel", "Duels"]
