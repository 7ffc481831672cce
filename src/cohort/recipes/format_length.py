"""Surrogate Signals from Format and Length: RL for Solving Mathematical Problems without Ground Truth Answers.

arXiv:2505.19439. Code insightLLM/rl-without-gt. Confidence: exact.

    R = w (F + H) + f(x) if F = 1,  min(0, f(x)) if F = 0                  mode="format_length"
    R = w (F + H)                                                         "format"
    R = w H + c                                                           "correctness", the baseline: c 1 if correct
    f(x) = 1 - (1 - x / p)^2 for x <= p,  1 - 2 ((x - p) / (1 - p))^2 beyond,     x = length / max_len

F: an answer is found in the completion and reads as mathematics; H: it holds <think>...</think>. Outside the baseline no
label is read, and R replaces the run's rewards: the verifier only measures. f is 1 at the peak p, 0 for nothing written
and -1 at max_len.

Defaults: w 0.5, p 0.5 (code); max_len: the run's longest completion.
"""

from __future__ import annotations

import re
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.formulas import reads_as_math
from cohort.types import Batch, StepInfo, generation_budget
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

_THINK = re.compile(r"<think>.*?</think>", re.DOTALL)


def read_format(batch: Batch, access: ModelAccess) -> Batch:
    """Read in the texts, by math-verify. The batch with `answer_format` and `think_format` [N]."""
    found = [(reads_as_math(r.text), _THINK.search(r.text) is not None) for r in access.rollouts]
    answer, think = torch.tensor(found, device=batch.device).float().T
    return batch.with_rollouts(answer_format=answer, think_format=think)


def length_reward(lengths: Tensor, *, max_len: int, p: float) -> Tensor:
    """f(length / max_len) of lengths [N]."""
    x = lengths / max_len
    return torch.where(x <= p, 1 - (1 - x / p) ** 2, 1 - 2 * ((x - p) / (1 - p)) ** 2)


@needs("answer_format", "think_format")
@hooks(on_scored=read_format)
@declare(provides=("answer_format", "think_format"))
def surrogate_signals(
    batch: Batch,
    *,
    mode: str = "format_length",
    format_weight: float = 0.5,
    max_len: int | None = None,
    p: float = 0.5,
    info: StepInfo,
) -> Tensor:
    """w (F + H) + f(x) where F = 1, else min(0, f(x)): [N]. Source: arXiv:2505.19439."""
    answer, think = (batch[name].to(batch.dtype) for name in ("answer_format", "think_format"))
    if mode == "correctness":
        return format_weight * think + batch["accuracy"]
    form = format_weight * (answer + think)
    if mode == "format":
        return form
    length = length_reward(batch.lengths, max_len=max_len or generation_budget(info), p=p)
    return torch.where(answer > 0, form + length, length.clamp(max=0))


@recipe(
    title="Surrogate Signals from Format and Length: RL for Solving Mathematical Problems without Ground Truth Answers",
    paper="arXiv:2505.19439",
    idea="rewards a readable answer and a good length; no labels",
    confidence="exact",
)
def format_length(
    *,
    mode: Annotated[str, ("format_length", "format", "correctness")] = "format_length",
    format_weight: Annotated[float, "[0, inf)"] = 0.5,
    max_len: Annotated[int | None, "[1, inf)"] = None,
    p: Annotated[float, "(0, 1)"] = 0.5,
) -> Method:
    how = {"mode": mode, "format_weight": format_weight, "max_len": max_len, "p": p}
    return Method(shaping=(use(surrogate_signals, **how),))
