"""A taskset of verifiers for tests: what is asked has to be looked up with a tool."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf


class Book(vf.Toolset[vf.ToolsetConfig, vf.State]):
    @vf.tool
    async def look_up(self, name: str) -> str:
        """The number of a person."""
        return {"ada": "1815", "alan": "1912"}.get(name.lower(), "unknown")


class BookTask(vf.Task[vf.TaskData]):
    @vf.reward
    async def found(self, trace: vf.Trace) -> float:
        return float("1815" in (trace.last_reply or ""))


class Books(vf.Taskset[BookTask, vf.TasksetConfig]):
    @classmethod
    def toolsets(cls, config: vf.TasksetConfig) -> list[vf.Toolset]:
        return [Book(vf.ToolsetConfig())]

    def load(self) -> Iterator[BookTask]:
        yield BookTask(vf.TaskData(prompt="What is Ada's number?"), self.config.task)


__all__ = ["Books"]

if __name__ == "__main__":
    Book.run()
