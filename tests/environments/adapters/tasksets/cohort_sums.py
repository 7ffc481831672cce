"""A taskset of verifiers for tests: sums, answered at once."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf


class SumsConfig(vf.TasksetConfig):
    count: int = 4


class SumsData(vf.TaskData):
    answer: str


class SumsTask(vf.Task[SumsData]):
    @vf.reward(weight=2.0)
    async def right(self, task: SumsData, trace: vf.Trace) -> float:
        return float(task.answer in (trace.last_reply or ""))

    @vf.reward(weight=0.5)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply or "") < 9)

    @vf.metric
    async def length(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply or ""))


class Sums(vf.Taskset[SumsTask, SumsConfig]):
    def load(self) -> Iterator[SumsTask]:
        for i in range(self.config.count):
            data = SumsData(prompt=f"What is {i}+{i}?", system_prompt="Answer with a number.", answer=str(2 * i))
            yield SumsTask(data, self.config.task)


__all__ = ["Sums"]
