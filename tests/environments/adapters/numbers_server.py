"""An OpenEnv server whose environment thinks of a digit: `python numbers_server.py PORT SESSIONS [tools|tasks]`."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_app
from pydantic import Field


class Guess(Action):
    number: int


class Seen(Observation):
    text: str = ""
    guesses: list[int] = Field(default_factory=list)


class Numbers(Environment):  # type: ignore[type-arg]
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State()

    def reset(self, seed: int | None = None, episode_id: str | None = None, **more: Any) -> Seen:
        seed = seed if more.get("index") is None else more["index"]
        self.number, self.guesses = random.Random(seed).randrange(10), []
        return Seen(text="Guess a digit.")

    def step(self, action: Guess, **_: Any) -> Seen:
        if action.number == 99:
            os._exit(3)
        self.guesses.append(action.number)
        if action.number == self.number:
            return Seen(text="right", reward=1.0, done=True)
        told = "larger" if action.number < self.number else "smaller"
        return Seen(text=told, guesses=self.guesses, reward=-0.1, done=len(self.guesses) == 5)

    @property
    def state(self) -> State:
        return self._state


class Tasks(Numbers):
    def list_splits(self) -> list[str]:
        return ["train", "test"]

    def list_tasks(self, split: str) -> list[Any]:
        return [{"index": i} for i in range(self.num_tasks(split))]

    def num_tasks(self, split: str) -> int:
        return {"train": 4, "test": 2}[split]


def main() -> None:
    port, sessions, kind = int(sys.argv[1]), int(sys.argv[2]), (*sys.argv[3:], "")[0]
    if kind == "tools":
        from fastmcp import FastMCP
        from openenv.core.env_server.mcp_environment import MCPEnvironment
        from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation

        class Tools(MCPEnvironment):
            SUPPORTS_CONCURRENT_SESSIONS = True

            def __init__(self) -> None:
                served = FastMCP("numbers")

                @served.tool
                def add(a: int, b: int) -> int:
                    """The sum of two numbers."""
                    return a + b

                super().__init__(served)
                self._state = State()

            def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Observation:
                return Observation(metadata={"hidden": 1})

            def _step_impl(self, action: Any, **_: Any) -> Observation:
                return Observation(reward=0.0)

            @property
            def state(self) -> State:
                return self._state

        app = create_app(Tools, CallToolAction, CallToolObservation, env_name="tools", max_concurrent_envs=sessions)
    else:
        made = Tasks if kind == "tasks" else Numbers
        app = create_app(made, Guess, Seen, env_name="numbers", max_concurrent_envs=sessions)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
