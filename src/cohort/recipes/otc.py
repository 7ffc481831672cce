"""OTC: Acting Less is Reasoning More! Teaching Model to Act Efficiently (Optimal Tool Calls via RL). arXiv:2504.14870.

Confidence: exact (the values of alpha and c, and what a rollout does without a correct one in its group, are inferred).

    r_i   = alpha r_tool phi_i          phi_i: the run's reward, "correct" is phi_i > 0; m_i: tool calls of rollout i
    r_tool = 1 if m = n = 0;  cos(m pi / (2 m + c)) if n = 0;  sin(m pi / (m + n)) otherwise        variant="grpo"
    r_tool = cos(m pi / (2 m + c))                                                                  variant="ppo"

n is the smallest number of calls among the correct rollouts of the group, with `memory` also of the prompt's earlier
visits. The factor is 1 at m = n and falls on both sides. A reward that is not positive stays as it is: nothing is paid
for leaving tools out without being right.

A call is what the regular expression `call` finds in the completion's text (`.` matches line breaks too), executed or
failed. Defaults: c 4 stands for the most tool turns; a closed fenced block of code or <tool_call> is a call.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_min
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks, needs

CALL = "```.*?```|<tool_call>"


def count_calls(batch: Batch, access: ModelAccess, *, call: str = CALL) -> Batch:
    """Counted in the texts. The batch with `tool_calls` [N]."""
    expression = re.compile(call, re.DOTALL)
    counts = [float(sum(1 for _ in expression.finditer(rollout.text))) for rollout in access.rollouts]
    return batch.with_rollouts(tool_calls=torch.tensor(counts, device=batch.device))


def tool_factor(calls: Tensor, least: Tensor | None, *, c: float) -> Tensor:
    """r_tool for m = `calls` and n = `least`, which broadcast; without n the form for single rollouts."""
    decay = torch.cos(calls * math.pi / (2 * calls + c))
    if least is None:
        return decay
    needed = torch.where(least > 0, least, torch.ones_like(least))
    return torch.where(least > 0, torch.sin(calls * math.pi / (calls + needed)), decay)


def optimal_calls(batch: Batch, state: State) -> Tensor:
    """[P] n of each group, with what is remembered of its prompt; inf where no correct rollout is known."""
    groups, calls = batch.groups, batch["tool_calls"].to(batch.dtype)
    now = group_min(torch.where(batch.rewards > 0, calls, torch.full_like(calls, torch.inf)), groups)
    if "least" not in state:
        return now
    remembered = state["least"].to(calls)[batch["row"]]
    return torch.minimum(now, group_min(remembered, groups))


def _nothing_known(size: int, memory: bool) -> State:
    return {"least": torch.full((size,), torch.inf, dtype=torch.float64)} if memory else {}


def _remember(batch: Batch, state: State) -> State:
    if "least" not in state:
        return state
    least = optimal_calls(batch, state)[batch.groups.index]
    return {"least": state["least"].scatter_reduce(0, batch["row"].cpu(), least.double().cpu(), "amin")}


@needs("tool_calls")
@hooks(init=_nothing_known, on_scored=count_calls, on_rollouts=_remember)
@declare(provides=("tool_calls",))
def tool_efficiency(
    batch: Batch, state: State, *, variant: str = "grpo", memory: bool = False, alpha: float = 1.0, c: float = 4.0
) -> tuple[Tensor, dict[str, float]]:
    """alpha r_tool(m_i, n) phi_i where phi_i > 0, else phi_i: [N]. Source: arXiv:2504.14870.

    It reports `tool_calls`, the mean number, and `tool_productivity`, the correct rollouts for each call.
    """
    rewards, calls = batch.rewards, batch["tool_calls"].to(batch.dtype)
    correct = rewards > 0
    least = None
    if variant == "grpo":
        least = optimal_calls(batch, state)[batch.groups.index].to(batch.dtype)
        least = torch.where(correct, least, torch.zeros_like(least))
    shaped = torch.where(correct, alpha * tool_factor(calls, least, c=c) * rewards, rewards)
    productivity = float(correct.sum() / calls.sum().clamp(min=1))
    return shaped, {"tool_calls": float(calls.mean()), "tool_productivity": productivity}


@recipe(
    title="Acting Less is Reasoning More! Teaching Model to Act Efficiently",
    paper="arXiv:2504.14870",
    idea="correct answers earn less the further their tool calls are from the fewest that were enough",
    confidence="exact",
)
def otc(
    *,
    variant: Annotated[str, ("grpo", "ppo")] = "grpo",
    memory: Annotated[bool, (False, True)] = False,
    alpha: Annotated[float, "(0, inf)"] = 1.0,
    c: Annotated[float, "(0, inf)"] = 4.0,
    call: str = CALL,
) -> Method:
    try:
        re.compile(call)
    except re.error as error:
        raise MethodError(f"'otc': call={call!r} is no regular expression: {error}") from error
    return Method(shaping=(use(tool_efficiency, variant=variant, memory=memory, alpha=alpha, c=c, call=call),))
