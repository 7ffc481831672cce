"""TTRL: Test-Time Reinforcement Learning. arXiv:2504.16084, code PRIME-RL/TTRL.

Confidence: exact; ours: a question without any answer gets rewards 0, where the official code fails.

There are questions and no answers. The answer that most of a question's rollouts give stands for the true one:

    y*  = the most frequent final answer of the n_votes rollouts, the first of equals; who answers nothing does not vote
    r_i = 1 if rollout i answers y*, else 0

All rollouts vote, the first n_samples of each question are trained on, and take their advantage among themselves.
Counted and compared is the normalised answer (numbers by value), so two spellings of a number are one answer. Labels are
often wrong, but where answers scatter, a rollout that differs from a wrong label is still rightly given 0.

The metrics vote/* say how often the majority is right, as far as the run's verifier knows the true answers.

Defaults: half of the rollouts are trained on (paper: 32 of 64 votes). n_votes None takes the run's group_size.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.filter import first_of_group
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.votes import majority_reward


def votes(rows: Tensor, *, group_size: int, n_votes: int) -> Tensor:
    """`n_votes` rollouts for every prompt, whatever the run's group_size. Source: arXiv:2504.16084."""
    return torch.full_like(rows, n_votes)


@recipe(
    title="TTRL: Test-Time Reinforcement Learning",
    paper="arXiv:2504.16084",
    idea="the majority answer of the policy's own rollouts is the label",
    confidence="exact",
)
def ttrl(
    *, n_votes: Annotated[int | None, "[2, inf)"] = None, n_samples: Annotated[int | None, "[1, inf)"] = None
) -> Method:
    if n_votes is not None and n_samples is not None and n_samples > n_votes:
        raise MethodError(f"'ttrl': n_samples={n_samples} rollouts cannot be trained on of n_votes={n_votes}")
    return Method(
        budget=use(votes, n_votes=n_votes) if n_votes is not None else None,
        shaping=(use(majority_reward),),
        filter=(use(first_of_group, count=n_samples),),
    )
