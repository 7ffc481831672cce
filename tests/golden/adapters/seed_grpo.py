import sys

import torch

from cohort.recipes.seed_grpo import scale_of, semantic_entropy
from cohort.reductions.groups import group_size
from tests.golden.runner import Run, make_batch

FIELDS = {"clusters": ("answer_id", "rollout")}


def _entropy(run):
    return semantic_entropy(run.batch, likelihood=run.config["likelihood"])


def _scale(run):
    size = group_size(run.batch.groups, torch.float64)
    return scale_of(_entropy(run), size, f=run.config["f"], alpha=run.config["alpha"])


OUTPUTS = {"semantic_entropy": _entropy, "scale": _scale}


def KIND_advantage(case):
    config, inputs = case["config"], case["inputs"]
    if "clusters_per_group" not in inputs:
        run = Run("seed-grpo", case, sys.modules[__name__])
        return {key: run.output(key) for key in case["expected"]}
    clusters = inputs["clusters_per_group"]
    group = [g for g, members in enumerate(clusters) for _ in members]
    batch, _ = make_batch({"group": group, "rewards": [0.0] * len(group)})
    batch = batch.with_rollouts(answer_id=torch.tensor([c for members in clusters for c in members]))
    entropy = semantic_entropy(batch, likelihood=config["likelihood"])
    size = group_size(batch.groups, torch.float64)
    scales = {f: scale_of(entropy, size, f=f, alpha=config["alpha"]) for f in config["functions"]}
    return {"semantic_entropy": entropy, "scale": scales}


def random_fields(batch, generator):
    if "answer_id" in batch:
        return batch
    return batch.with_rollouts(answer_id=torch.randint(-1, 3, (batch.size,), generator=generator))
