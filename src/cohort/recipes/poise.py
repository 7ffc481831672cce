"""POISE: Your Language Model is Its Own Critic: Reinforcement Learning with Value Estimation from Actor's Internal States.

arXiv:2605.07579, code holi-lab/POISE. Confidence: exact for features, probe and advantage; the order of fit and update, the
start and the buffers follow the configuration and the project's description.

    z_i  = standardised [ PCA(h_prompt), PCA(h_response), mean entropy of completion, thought and answer ]
    g(z) = clip(w.z + c, 0, 1), ridge regression on y_i = mean of the other rollouts' rewards
    b_i  = mean over the other rollouts j of g(z_j)            A_i = r_i - b_i

h is the mean hidden state of the last tokens of the prompt or of the completion at one layer: 19 or, in a shallower model,
the first of its halves. The thought stands before </think>, after <think> where the completion has one; a part that is
missing has entropy 0. The predictions of a step come from the probe of the step before; then its rows go into a buffer, the
oldest leave, and the probe is fitted anew. In the first steps, and where there is no probe yet, A is RLOO's.

`domain` names a data column with a buffer and a probe for each of its values. Use group_size 2, and more prompts.

Defaults: official configuration for Qwen3-4B (its buffers: 4096 rows for math, 3072 for code and for the rest).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import leave_one_out_mean, token_mean
from cohort.signals import probing
from cohort.signals.spans import text_ends, thought_and_answer, tokens_within
from cohort.types import Batch, Rollout, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks, needs

FEATURES = ("prompt_feature", "response_feature", "entropy_feature")


def entropy_features(entropy: Tensor, whole: Tensor, thought: Tensor, answer: Tensor) -> Tensor:
    """[N, 3] mean entropy over the tokens of the whole and of two parts of it, masks [N, T]; 0 for an empty one."""
    return torch.stack([token_mean(entropy, part & whole) for part in (whole, thought, answer)], 1)


def _nothing() -> State:
    return {}


def _domains(rollouts: Sequence[Rollout], count: int, domain: str | None) -> dict[str, list[int]]:
    """Rows by the value of the column; all in one without a column."""
    rows: dict[str, list[int]] = {}
    for i, name in enumerate([str(r.prompt.row.get(domain)) for r in rollouts] if domain else [""] * count):
        rows.setdefault(name, []).append(i)
    return rows


def _look(
    batch: Batch,
    access: ModelAccess,
    state: State,
    *,
    layer: int | None,
    pool_last: int,
    bootstrap_steps: int,
    domain: str | None,
    clip: tuple[float, float],
) -> Batch:
    """A pass for the hidden states of every rollout, and what the last step's probe expects of it."""
    at = probing.layer_of(access, layer, default=19)
    prompts, responses = probing.pooled_states(access, layer=at, last=pool_last)
    ends = text_ends(batch, access)
    spans = zip(*(thought_and_answer(rollout.text) for rollout in access.rollouts), strict=True)
    parts = [tokens_within(ends, each) for each in spans]
    values = (prompts, responses, entropy_features(batch["old_entropy"], batch.mask, *parts))
    kept = {name: value.float().cpu() for name, value in zip(FEATURES, values, strict=True)}
    expected = torch.full((batch.size,), torch.nan)
    for name, rows in _domains(access.rollouts, batch.size, domain).items():
        if name in state and "weights" in state[name]["probe"] and access.step >= bootstrap_steps:
            prompt, response, scalars = (kept[feature][rows] for feature in FEATURES)
            expected[rows] = probing.predict(state[name]["probe"], (prompt, response), scalars).clamp(*clip).float()
    return batch.with_rollouts(**kept, value_predictions=expected).to(batch.device)


def _learn(
    batch: Batch,
    state: State,
    rollouts: Sequence[Rollout],
    *,
    dims: tuple[int, int],
    alpha: float,
    buffer: int,
    bootstrap_steps: int,
    domain: str | None,
    info: StepInfo,
) -> State:
    new, target = dict(state), leave_one_out_mean(batch.rewards, batch.groups)
    for name, rows in _domains(rollouts, batch.size, domain).items():
        old = state.get(name, {})
        fresh = {"target": target[rows].cpu(), **{feature: batch[feature][rows].cpu() for feature in FEATURES}}
        held = {key: torch.cat([old[key], x])[-buffer:] if key in old else x[-buffer:] for key, x in fresh.items()}
        fitted: State = {}
        if info.step + 1 >= bootstrap_steps:
            prompt, response, scalars = (held[feature] for feature in FEATURES)
            fitted = probing.fit((prompt, response), scalars, held["target"], dims=dims, alpha=alpha)
        new[name] = {**held, "probe": fitted}
    return new


@needs("value_predictions", "old_entropy")
@hooks(init=_nothing, on_scored=_look, on_rollouts=_learn)
@declare(group_size=2, provides=("value_predictions", *FEATURES))
def cross_baseline(batch: Batch) -> Tensor:
    """r_i - mean of g(z_j) over the other rollouts of the group: [N]. Source: arXiv:2605.07579."""
    # Without a prediction the reward itself stands in for it, and the baseline is RLOO's.
    expected = batch["value_predictions"].to(batch.dtype)
    expected = torch.where(expected.isnan(), batch.rewards, expected)
    return batch.rewards - leave_one_out_mean(expected, batch.groups)


@recipe(
    title="Your Language Model is Its Own Critic: RL with Value Estimation from Actor's Internal States",
    paper="arXiv:2605.07579",
    idea="a linear probe of the policy's hidden states predicts the baseline from the sibling rollout",
    confidence="exact",
)
def poise(
    *,
    layer: Annotated[int | None, "[0, inf)"] = None,
    pool_last: Annotated[int, "[1, inf)"] = 10,
    prompt_pca_dim: Annotated[int, "[1, inf)"] = 32,
    response_pca_dim: Annotated[int, "[1, inf)"] = 64,
    alpha: Annotated[float, "(0, inf)"] = 100.0,
    clip: tuple[float, float] = (0.0, 1.0),
    buffer: Annotated[int, "[1, inf)"] = 4096,
    bootstrap_steps: Annotated[int, "[1, inf)"] = 16,
    domain: str | None = None,
) -> Method:
    look = {"layer": layer, "pool_last": pool_last, "clip": clip, "domain": domain, "bootstrap_steps": bootstrap_steps}
    learn = {"dims": (prompt_pca_dim, response_pca_dim), "alpha": alpha, "buffer": buffer}
    return Method(advantage=use(cross_baseline, **look, **learn))
