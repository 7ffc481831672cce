import sys

import torch

from cohort.reductions.groups import group_bundles, group_sum
from cohort.reductions.quantiles import LEVELS, track
from tests.golden.runner import Run

# Bundles are made of consecutive questions, and exams of rollouts of equal place.
ORDERED = True
# The plain formula, also for a bundle of equal scores.
HYPER = {"min_std": None}


def states(run):
    """With the tracked quantiles that the case gives."""
    quantiles = torch.full((len(LEVELS),), torch.nan, dtype=torch.float64)
    for name in ("low", "high"):
        if f"q_{name}" in run.inputs:
            level = run.config[f"level_{name}"]
            quantiles[min(range(len(LEVELS)), key=lambda k: abs(LEVELS[k] - level))] = run.inputs[f"q_{name}"]
    return {"advantage/mixed_value_at_risk": {"quantiles": quantiles}}


FIELDS = {"q_low": None, "q_high": None, "bundle_of_group": None}


def _nested(run, per_rollout):
    """Values [N] of the rollouts, one for each exam, as [bundle][exam]."""
    rows, exam, bundle = group_bundles(run.batch.groups, run.config["bundle_size"])
    first = torch.zeros(exam.count, dtype=per_rollout.dtype).scatter(0, exam.index, per_rollout[rows])
    return first.reshape(bundle.count, -1)


def _scores(run):
    rows, exam, _ = group_bundles(run.batch.groups, run.config["bundle_size"])
    score = group_sum(run.batch.rewards[rows], exam)[exam.index]
    return _nested(run, torch.zeros_like(run.batch.rewards).index_copy(0, rows, score))


OUTPUTS = {"bundle_scores": _scores, "bundle_advantages": lambda run: _nested(run, run.assigned["outcome_advantage"])}


def KIND_advantage(case):
    """Rewards nested as [bundle][question][rollout]; advantages in the same nesting."""
    rewards = torch.tensor(case["inputs"]["rewards"], dtype=torch.float64)
    bundles, questions, rollouts = rewards.shape
    group = torch.arange(bundles * questions).repeat_interleave(rollouts)
    inputs = {**case["inputs"], "rewards": rewards.flatten().tolist(), "group": group.tolist()}
    run = Run("riskpo", {**case, "inputs": inputs, "expected": {}}, sys.modules[__name__])
    return {**{name: make(run) for name, make in OUTPUTS.items()}, "advantages": run.advantages.reshape(rewards.shape)}


def KIND_state(case):
    config, quantiles, out = case["config"], None, []
    for scores in case["inputs"]["bundle_scores_per_step"]:
        quantiles = track(quantiles, torch.tensor(scores), lr=config["lr"], levels=tuple(config["levels"]))
        out.append(quantiles)
    return {"quantiles_per_step": out}


# Eight letters make few bundles of five, in which a rollout hardly moves the score.
HYPER_TRAIN = "(bundle_size=2, quantiles='mix', credit='uniform')"
