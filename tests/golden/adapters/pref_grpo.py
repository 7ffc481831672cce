import torch

from cohort import registry
from cohort.recipes.pref_grpo import with_win_rate
from cohort.signals.preference import tally
from cohort.types import Batch
from tests.golden.runner import Run, make_batch, tensor

# The pairs of the cases are a judge's verdicts; it is asked in training only.
HYPER = {"judge": "verdicts.py:better"}


def _judged(batch, pairs):
    """The batch with the verdicts on its pairs, numbered within each group, as a judge's answers are counted."""
    members = [(batch.groups.index == group).nonzero()[:, 0].tolist() for group in range(batch.groups.count)]
    rows = [(members[g][i], members[g][j]) for g, found in enumerate(pairs) for i, j, _ in found]
    wins, comparisons = tally(batch.size, rows, [verdict for found in pairs for _, _, verdict in found])
    return batch.with_rollouts(wins=wins, comparisons=comparisons)


def batch(case):
    inputs = dict(case["inputs"])
    pairs, score = inputs.pop("pairs", None), inputs.pop("clip_score", None)
    if "reward_components" in inputs:
        inputs.setdefault("rewards", [0.0] * len(inputs["group"]))
    made, leaves = make_batch(inputs)
    if score is not None:
        made = made.replace(reward_components=tensor(score)[:, None])
    return made if pairs is None else _judged(made, pairs), leaves


OUTPUTS = {"reward_components": lambda run: with_win_rate(run.shaped)["reward_components"]}


def KIND_reward(case):
    sizes = case["inputs"]["group_sizes"]
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    made = Batch.of(torch.ones(len(group), 1), group=group, rewards=torch.zeros(len(group)).double())
    method = registry.method("pref-grpo", **HYPER, **case["config"])
    rewards = method.bind().shape(_judged(made, case["inputs"]["pairs"])).rewards
    return {"rewards": [part.tolist() for part in rewards.split(sizes)]}


def KIND_advantage(case):
    """Rewards are given, so the advantage alone is run."""
    import sys

    run = Run("pref-grpo", case, sys.modules[__name__])
    parts = run.batch["reward_components"]
    made = run.batch.replace(reward_components=parts[:, 1:]).with_rollouts(win_rate=parts[:, 0])
    return {"advantages": run.bound.assign(made)["outcome_advantage"]}
