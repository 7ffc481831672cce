"""ReST-GRPO (ReST-RL: Achieving Accurate Code Reasoning with Optimized Self-Training and Decoding). arXiv:2508.19576.

Code THUDM/ReST-RL. Confidence: exact (official data processing, reward and search).

An iteration begins with `samples` answers of the current policy to each task. Tasks whose rewards hardly vary are dropped
(population standard deviation below `std_min`); the others are trained on. Where the best answer earns `reward_min`, further
items begin with a part of it: of its L lines, ceil(sample_ratio L) prefixes are drawn with replacement,

    P(first j + 1 lines) = alpha^j / sum_m alpha^m

and the rollouts go on behind a prefix, which is not trained and counts for the tests. Items are trained on once, in random
order; those of one task do not meet in a step, where they would be one group. Then the next iteration begins.

    r = tests(prefix + what stands before the stop string) + [symbol_reward - trailing_penalty * characters behind it]

The bracket is there where a stop string is: one of `stop`, behind which the policy may go on, or one of the run (`--stop`),
which ends it. The paper's tasks open a fence in the prompt, and "```" is their stop string.

The second stage, decoding by a value model and tree search, is `cohort eval --search` (rollouts/search.py).

Defaults: 5 samples, std_min 0.05, reward_min 0.9, sample_ratio 0.5, alpha 0.95, symbol_reward 1e-3, trailing_penalty 1e-6 (the
paper's). `tasks` None tries all of the data in an iteration, else that many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.guidance import behind_beginnings
from cohort.axes.sampling import until_stop
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.beginnings import beginning_weights, beginnings
from cohort.types import Batch, grouped
from cohort.types.access import Notes, Pool
from cohort.types.declare import State, hooks, needs


def task_route(rewards: Sequence[float], *, std_min: float, reward_min: float) -> tuple[float, int, str]:
    """(standard deviation, place of the best reward, "drop" or "base" or "base_and_prefixes") of a task."""
    mean = sum(rewards) / len(rewards)
    std = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    best = max(range(len(rewards)), key=lambda i: (rewards[i], -i))
    kept = "base_and_prefixes" if rewards[best] >= reward_min else "base"
    return std, best, "drop" if std < std_min else kept


def _collect(
    pool: Pool,
    rng: torch.Generator,
    tasks: int | None,
    samples: int,
    sample_ratio: float,
    alpha: float,
    **limits: float,
) -> list[list[int | str]]:
    """[row, beginning] of every item of an iteration, shuffled; all tasks, where none is kept."""
    rows = torch.randperm(len(pool.prompts), generator=rng)[:tasks]
    found = {group.prompt.id: group.rollouts for group in grouped(pool.draw(rows, samples))}
    items: list[list[int | str]] = []
    for row in rows.tolist():
        own = found.get(pool.prompts[row].id, ())
        _, best, route = task_route([each.reward for each in own] or [0.0], **limits)
        items += [[row, ""]] if route != "drop" else []
        if route == "base_and_prefixes":
            starts = beginnings(own[best].text)
            draws = (beginning_weights(len(starts), alpha), math.ceil(sample_ratio * len(starts)))
            picked = torch.multinomial(*draws, replacement=True, generator=rng).tolist() if draws[1] else []
            items += [[row, starts[j]] for j in picked]
    items = items or [[row, ""] for row in rows.tolist()]
    return [items[i] for i in torch.randperm(len(items), generator=rng).tolist()]


@hooks(init=lambda size: {"items": []})
def varied_tasks(
    state: State,
    *,
    count: int,
    rng: torch.Generator,
    pool: Pool,
    tasks: int | None = None,
    samples: int = 5,
    std_min: float = 0.05,
    reward_min: float = 0.9,
    sample_ratio: float = 0.5,
    alpha: float = 0.95,
) -> tuple[Tensor, State, Notes]:
    """The next items, at most one of each task. Source: arXiv:2508.19576."""
    items = list(state["items"])
    if len({row for row, _ in items}) < count:
        limits = {"std_min": std_min, "reward_min": reward_min}
        items += _collect(pool, rng, tasks, samples, sample_ratio, alpha, **limits)
    picked: dict[int, str] = {}
    left = []
    for row, start in items:
        if len(picked) < count and row not in picked:
            picked[row] = start
        else:
            left.append([row, start])
    return torch.tensor([*picked]), {"items": left}, [{"start": start} for start in picked.values()]


@needs("stop_bonus")
def with_stop_bonus(batch: Batch) -> Tensor:
    """r_i plus what its stop string is worth: [N]."""
    return batch.rewards + batch["stop_bonus"]


@recipe(
    title="ReST-RL: Achieving Accurate Code Reasoning of LLMs with Optimized Self-Training and Decoding",
    paper="arXiv:2508.19576",
    idea="trains on tasks whose rewards vary, and on beginnings of the policy's own best answers",
    confidence="exact",
)
def rest_grpo(
    *,
    tasks: Annotated[int | None, "[1, inf)"] = None,
    samples: Annotated[int, "[1, inf)"] = 5,
    std_min: Annotated[float, "[0, inf)"] = 0.05,
    reward_min: Annotated[float, "(-inf, inf)"] = 0.9,
    sample_ratio: Annotated[float, "[0, inf)"] = 0.5,
    alpha: Annotated[float, "(0, 1]"] = 0.95,
    stop: tuple[str, ...] = (),
    symbol_reward: Annotated[float, "[0, inf)"] = 1e-3,
    trailing_penalty: Annotated[float, "[0, inf)"] = 1e-6,
) -> Method:
    pick = {"tasks": tasks, "samples": samples, "std_min": std_min, "reward_min": reward_min}
    bonus = {"symbol_reward": symbol_reward, "trailing_penalty": trailing_penalty}
    return Method(
        curriculum=use(varied_tasks, **pick, sample_ratio=sample_ratio, alpha=alpha),
        guidance=use(behind_beginnings),
        sampling=use(until_stop, stop=stop, **bonus),
        shaping=(use(with_stop_bonus),),
    )
