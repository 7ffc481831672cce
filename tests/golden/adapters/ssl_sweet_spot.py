from pathlib import Path

import torch

from cohort import registry
from cohort.recipes.ssl_sweet_spot import click, grid, leading, mean_score, tier_value, zones
from cohort.types import Batch
from tests.golden.runner import make_batch
from tests.helpers import info_of, with_rewards


def _scored(batch, scores):
    """With the reward `proximity` after those that are there."""
    return with_rewards(batch, torch.as_tensor(scores, dtype=torch.float64))


NAMED = ("proximity",)


def batch(case):
    inputs = dict(case["inputs"])
    steps = inputs.pop("step_proximity")
    made, leaves = make_batch(inputs)
    return _scored(made, [mean_score(row) for row in steps]), leaves


def _score(run):
    return run.batch["reward_components"][:, -1]


OUTPUTS = {
    "score": _score,
    "zone": lambda run: zones(_score(run), tiers=run.config["tiers"]),
    "tier_value": lambda run: tier_value(_score(run), tiers=run.config["tiers"]),
}


def _scores(inputs, config):
    if "points" in inputs:
        return [mean_score([click(p, inputs["box"], spread=config["spread"])]) for p in inputs["points"]]
    if "gold" in inputs:
        return [grid(p, inputs["gold"], block=config["block"]) for p in inputs["predictions"]]
    if "step_correct" in inputs:
        return [leading(steps) for steps in inputs["step_correct"]]
    return inputs["scores"]


def KIND_reward(case):
    """Everything through the method's own shaping, of outcomes 0 where the case gives none."""
    config, inputs = case["config"], case["inputs"]
    scores = torch.tensor(_scores(inputs, config), dtype=torch.float64)
    tiers = config.get("tiers", inputs.get("tiers"))
    found = []
    for k in tiers if isinstance(tiers, list) else [tiers]:
        right = torch.tensor(inputs.get("correct", [0.0] * len(scores)), dtype=torch.float64)
        made = Batch.of(torch.ones(len(scores), 1), group=torch.arange(len(scores)), accuracy=right, rewards=right)
        method = registry.method("ssl-sweet-spot", tiers=k, alpha=config.get("alpha", 0.5))
        made = _scored(made, scores)
        rewards = method.bind(info=info_of(made, *NAMED)).shape(made).rewards
        found.append((zones(scores, tiers=k), tier_value(scores, tiers=k), rewards))
    zone, tier, rewards = zip(*found, strict=True) if isinstance(tiers, list) else found[0]
    return {"proximity": scores, "score": scores, "zone": zone, "tier_value": tier, "rewards": rewards}


def random_fields(batch, generator):
    return _scored(batch, torch.rand(batch.size, generator=generator, dtype=torch.float64))


REWARDS = Path(__file__).parents[2] / "micro_rewards.py"
TRAIN = {"reward": ["exact", f"0*{REWARDS}:proximity"]}
HYPER_TRAIN = "(alpha=0.2)"
