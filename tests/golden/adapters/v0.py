import sys

import torch

from cohort.axes.budget import best_plan
from cohort.recipes.v0 import route, utility
from cohort.signals.predictor import losses
from tests.golden.runner import Run, make_batch, tensor


def batch(case):
    made, leaves = make_batch(case["inputs"])
    return with_features(made, torch.zeros(made.groups.count, 4)), leaves


def with_features(made, known):
    return made.with_rollouts(prompt_features=known[made.groups.index])


def KIND_loss(case):
    if "logits" not in case["inputs"]:
        run = Run("v0", case, sys.modules[__name__])
        return {key: run.output(key) for key in case["expected"]}
    logits = tensor(case["inputs"]["logits"]).requires_grad_()
    loss, pairs, soft = losses(logits, tensor(case["inputs"]["soft_labels"]), alpha=case["config"]["alpha"])
    (grad,) = torch.autograd.grad(loss, logits)
    return {"loss": loss, "loss_pairwise": pairs, "loss_ce": soft, "grad_logits": grad}


def KIND_budget(case):
    config, success = case["config"], tensor(case["inputs"]["success"])
    if "budgets" in case["inputs"]:
        return {"utility": utility(tensor(case["inputs"]["budgets"]).double(), success[:, None])}
    table = utility(torch.arange(config["max_budget"] + 1).double(), success[:, None])
    plan = best_plan(table, config["total"], low=config["min_budget"])
    return {"budgets": plan, "total_utility": float(table[torch.arange(len(plan)), plan].sum())}


def KIND_curriculum(case):
    success, costs = tensor(case["inputs"]["success"]), tensor(case["inputs"]["costs"]).double()
    found = [route(success, costs, beta=beta) for beta in case["config"]["betas"]]
    return {"scores": [scores for scores, _ in found], "choice": [choice for _, choice in found]}


def random_fields(made, generator):
    return with_features(made, torch.randn(made.groups.count, 4, generator=generator))
