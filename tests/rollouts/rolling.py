"""A rolling batch of rollouts whose lengths are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cohort import registry
from cohort.engine.base import Sampling
from cohort.methods import Method, use
from cohort.policies.causal_lm import CausalLM
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import RewardSpec
from cohort.rollouts.collect import Collector
from cohort.rollouts.windows import Rolling
from cohort.types import Request, Rollout, Segment, StepInfo
from cohort.types.declare import hooks
from tests.helpers import prompt_of, tiny_policy


@hooks(init=lambda *, size: {"at": 0, "size": size})
def in_turn(state: dict[str, int], *, count: int) -> tuple[Tensor, dict[str, int]]:
    """The next prompts, while there are any."""
    end = min(state["at"] + count, state["size"])
    return torch.arange(state["at"], end), {**state, "at": end}


@cache
def policy() -> CausalLM:
    return tiny_policy()


class Known(Collector):
    """Draws rollouts of known lengths; prompts are numbers."""

    lengths: Sequence[int]

    def generate(self, requests: Sequence[Request], *, alone: bool = False) -> list[Rollout]:
        out = []
        for request in requests:
            left = self.lengths[int(request.prompt.row["number"])] - len(request.prefix)
            drawn = min(left, request.max_new_tokens)
            segments = (*request.history, Segment((5,) * drawn, logp=(-1.0,) * drawn, version=self.version))
            out.append(Rollout(request, segments, "finished" if drawn == left else "truncated", "right"))
        return out


def rolling(lengths: Sequence[int], *, window: int, slots: int, max_length: int) -> tuple[Method, Rolling]:
    """The method and the source of rollouts with these true lengths, one a slot, in the order of the queue."""
    method = registry.method("t-ppo", window=window) | Method(curriculum=use(in_turn))
    scorer = Scorer([RewardSpec("one", "one", function=lambda completions: [1.0] * len(completions))], process=False)
    draws = Known(policy(), None, Sampling(), Grader(scorer, "one", 0.5, max_length), max_length)  # type: ignore[arg-type]
    draws.lengths = lengths
    prompts = [prompt_of(policy(), f"p{number}", number=number) for number in range(len(lengths))]
    reader: Any = None
    return method, Rolling(method, draws, prompts, reader, prompts_per_step=slots, group_size=1)


def rolling_steps(
    lengths: Sequence[int], *, window: int, slots: int, max_length: int, steps: int
) -> list[list[tuple[int, int, int, bool]]]:
    """What each step generates: (prompt, first token, end, finished) for every slot."""
    method, source = rolling(lengths, window=window, slots=slots, max_length=max_length)
    states, out = method.init(size=len(lengths)), []
    for step in range(steps):
        drawn = source.next(StepInfo(step=step, version=step, max_new_tokens=max_length), states)
        states = dict(drawn.states)
        source.release(drawn.chosen)
        out.append(
            [
                (
                    int(rollout.prompt.row["number"]),
                    int(rollout.fields["window_start"]),  # type: ignore[arg-type]
                    len(rollout.tokens),
                    not rollout.waits,
                )
                for rollout in drawn.rollouts
            ]
        )
    return out
