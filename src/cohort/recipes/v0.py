"""V0: A Generalist Value Model for Any Policy at State Zero. arXiv:2602.03584.

Code Now-Join-Us/V0 (the value model). Confidence: reconstructed: solver and bounds of the allocation, scaling of the cost.
Known: the value model's loss, utility, routing score.

A value model tells how likely the policy is to solve a prompt, before it tries, from prompts whose success rates are known: the
last `context` ones. Rollouts go where failures will share their group with a success:

    U(B, p) = B (1 - p) [1 - (1 - p)^(B - 1)]
    maximise sum_i U(B_i, p_i)  s.t.  sum_i B_i = M G,  min_budget <= B_i <= max_budget          (exact: U is not concave)

The paper's model has an embedding backbone and a frozen in-context classifier, trained on many policies. In its place stand
the policy's own features of a prompt and a small in-context classifier (`signals/predictor.py`) that learns with the paper's
loss as the run goes. `embed` names a function of yours for the features, `predictor` one for the whole: it is called with the
prompts and, for each, the list `history` of (prompt, success rate). Until both kinds of prompts are known, budgets are equal.
`route` chooses among models by predicted success and cost.

Defaults: alpha 0.25, context 256 (paper); bounds 2 and 32, lr 1e-3, 8 updates a step are ours.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.budget import best_plan
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import by_prompt, group_mean
from cohort.signals.features import EMBED, features, prompt_features
from cohort.signals.predictor import learned, predict, untrained
from cohort.types import Batch, StepInfo
from cohort.types.access import Judge, Pool
from cohort.types.declare import State, declare, hooks

PREDICT = "predictor(prompts, history, **columns) -> a success rate for each prompt"


def utility(budget: Tensor, success: Tensor) -> Tensor:
    """U(B, p), broadcast: the expected number of failures that share their group with a success."""
    return budget * (1 - success) * (1 - (1 - success) ** (budget - 1).clamp(min=0))


def route(success: Tensor, costs: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """Scores beta V0 + (1 - beta) (1 - cost) [n, m] of m models for n prompts, and the best one [n], the first on a tie.

    Args:
        success: [n, m] predicted rates; costs: [m], scaled here to [0, 1], equal ones to 0.
    """
    width = costs.max() - costs.min()
    scaled = (costs - costs.min()) / width if bool(width > 0) else torch.zeros_like(costs)
    scores = beta * success + (1 - beta) * (1 - scaled)
    return scores, scores.argmax(1)


def both_kinds(success: Tensor) -> bool:
    """There are prompts that are mostly solved, and others."""
    return bool((success >= 0.5).any()) and bool((success < 0.5).any())


def _nothing_known(size: int) -> State:
    empty = torch.empty(0)
    return {"rows": empty.long(), "features": empty.reshape(0, 0), "success": empty, "model": {}}


def _learn(batch: Batch, state: State, info: StepInfo, *, context: int, alpha: float, lr: float, updates: int) -> State:
    prompts, rng = by_prompt(batch), torch.Generator().manual_seed((info.seed or 0) * 1_000_003 + info.step)
    first = torch.arange(batch.size - 1, -1, -1)
    place = torch.zeros(prompts.count, dtype=torch.int64).scatter(0, prompts.index.flip(0), first)
    success = group_mean(batch["accuracy"].cpu(), prompts).float()
    found, rows = batch["prompt_features"].cpu()[place].float(), prompts.labels
    known, rates, model = state["features"], state["success"], state["model"]
    if both_kinds(rates):
        model = model or untrained(found.shape[1])
        model = learned(model, found, success, known, rates, alpha=alpha, lr=lr, updates=updates, rng=rng)
    return {
        "rows": torch.cat([state["rows"], rows])[-context:],
        "features": (torch.cat([known, found]) if len(known) else found)[-context:],
        "success": torch.cat([rates, success])[-context:],
        "model": model,
    }


@hooks(init=_nothing_known, on_scored=prompt_features, on_rollouts=_learn)
@declare(group_size=2, provides=("prompt_features",), functions={"embed": EMBED, "predictor": PREDICT})
def by_predicted_success(
    rows: Tensor,
    state: State,
    *,
    group_size: int,
    pool: Pool,
    min_budget: int = 2,
    max_budget: int = 32,
    context: int = 256,
    alpha: float = 0.25,
    lr: float = 1e-3,
    updates: int = 8,
    embed: Judge | None = None,
    predictor: Judge | None = None,
) -> Tensor:
    """Counts [M] of the best allocation for predicted success rates. Source: arXiv:2602.03584."""
    if not (both_kinds(state["success"]) and (state["model"] or predictor)):
        return torch.full_like(rows, group_size)
    asked = [pool.prompts[row] for row in rows.tolist()]
    if predictor is None:
        logits = predict(state["model"], features(asked, pool, embed), state["features"], state["success"])
        rates = logits.softmax(1)[:, 1].double()
    else:
        pairs = zip(state["rows"].tolist(), state["success"].tolist(), strict=True)
        history = [(pool.prompts[row].source, rate) for row, rate in pairs]
        rates = torch.tensor(pool.judge(predictor, asked, history=[history] * len(asked)), dtype=torch.float64)
    low, high = min(min_budget, group_size), max(max_budget, group_size)
    table = utility(torch.arange(high + 1).double(), rates.clamp(0, 1)[:, None])
    return torch.tensor(best_plan(table, group_size * len(asked), low=low)).to(rows)


@recipe(
    title="V_0: A Generalist Value Model for Any Policy at State Zero",
    paper="arXiv:2602.03584",
    idea="predicts each prompt's success before it is tried, and hands out rollouts by that",
    confidence="reconstructed: solver and bounds of the allocation, scaling of the cost",
)
def v0(
    *,
    min_budget: Annotated[int, "[1, inf)"] = 2,
    max_budget: Annotated[int, "[1, inf)"] = 32,
    context: Annotated[int, "[2, inf)"] = 256,
    alpha: Annotated[float, "[0, 1]"] = 0.25,
    lr: Annotated[float, "(0, inf)"] = 1e-3,
    updates: Annotated[int, "[0, inf)"] = 8,
    embed: str | None = None,
    predictor: str | None = None,
) -> Method:
    if min_budget > max_budget:
        raise MethodError(f"'v0': min_budget={min_budget} is above max_budget={max_budget}")
    model = {"context": context, "alpha": alpha, "lr": lr, "updates": updates, "embed": embed, "predictor": predictor}
    return Method(budget=use(by_predicted_success, min_budget=min_budget, max_budget=max_budget, **model))
