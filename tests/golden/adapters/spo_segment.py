import math

import torch

from cohort.recipes.spo_segment import cuts, segment_gains
from cohort.reductions.tree import recent_edges, tree_advantages, tree_values
from tests.golden.runner import make_batch

RENAME = {"cutpoint_interval": "interval"}
# What the aggregation is called there says what the method's own is.
IGNORE = ("aggregation",)


def batch(case):
    """The value of each cut stands at the token that follows it."""
    inputs = dict(case["inputs"])
    values = inputs.pop("values")
    inputs["rewards"] = inputs.pop("scores")
    made, leaves = make_batch(inputs)
    config = case["config"]
    at = cuts(made.old_logp, made.mask, interval=config["cutpoint_interval"], prob_threshold=config["prob_threshold"])
    field = torch.full(made.mask.shape, math.nan, dtype=torch.float64)
    field[at] = torch.tensor([v for row in values for v in row], dtype=torch.float64)
    return made.with_tokens(cut_value=field), leaves


def _cutpoints(run):
    return [(row.nonzero()[:, 0] - 1).tolist() for row in ~run.batch["cut_value"].isnan() & run.batch.mask]


OUTPUTS = {
    "cutpoints": _cutpoints,
    "segment_advantages": lambda run: segment_gains(run.batch, prob_threshold=run.config["prob_threshold"]),
}


def KIND_advantage(case):
    parent = torch.tensor(case["inputs"]["parent"])
    values = tree_values(parent, torch.tensor(case["inputs"]["leaf_reward"], dtype=torch.float64))
    gains = tree_advantages(parent, values)
    return {
        "values": values,
        "advantages": gains,
        "advantages_normalised": tree_advantages(parent, values, normalise=True, eps=case["config"]["eps_std"]),
        "trained_edges": (gains.abs() > 1e-12).nonzero()[:, 0],
    }


def KIND_filter(case):
    inputs, config = case["inputs"], case["config"]
    question = torch.tensor(inputs["edge_question"])
    used = recent_edges(
        question,
        torch.tensor(inputs["edge_iteration"]),
        now=inputs["iteration"],
        max_age=config["max_age"],
        most=config["max_edges_per_question"],
        rng=torch.Generator().manual_seed(0),
    )
    labels, count = torch.unique(question[used], return_counts=True)
    return {"question": labels, "used_this_iteration": count}


def random_fields(batch, generator):
    marked = torch.rand(batch.mask.shape, generator=generator) < 0.4
    value = torch.rand(batch.mask.shape, generator=generator, dtype=batch.dtype)
    return batch.with_tokens(cut_value=torch.where(marked, value, torch.full_like(value, math.nan)))


TRAIN = {"thought": True}
HYPER_TRAIN = "(interval=1, prob_threshold=0.99, continuations=3)"
