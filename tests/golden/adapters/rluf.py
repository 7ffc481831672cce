import torch

from cohort import registry
from cohort.reductions.scores import auc, label_loss, mean_gap, probability
from cohort.types import Batch
from tests.golden import runner
from tests.golden.runner import make_batch, tensor
from tests.helpers import info_of, with_rewards

NAMED = ("helpfulness", "safety", "love")
IGNORE = ("objectives", "weights")
OUTPUTS = {"reward_components": lambda run: run.batch["reward_components"]}
WEIGHTS = ("w_help", "w_safe", "w_love")


def hyper(case):
    return dict(zip(WEIGHTS, case["config"]["weights"], strict=True))


def batch(case):
    inputs = dict(case["inputs"])
    love = probability(tensor(inputs.pop("love_score")))
    parts = torch.stack([*(tensor(inputs.pop(name)) for name in NAMED[:2]), love], 1)
    made, leaves = make_batch({**inputs, "rewards": [0.0] * len(parts)})
    return made.replace(reward_components=parts), leaves


def KIND_loss(case):
    """The loss of the policy, or of the model of reactions."""
    inputs = case["inputs"]
    if "reacted" not in inputs:
        run = runner.Run("rluf", case, runner.adapter("rluf"))
        return {key: run.output(key) for key in case["expected"]}
    scores = tensor(inputs["scores"]).requires_grad_()
    loss = label_loss(scores, tensor(inputs["reacted"]))
    return {"p_love": probability(scores), "loss": loss, "grad_scores": torch.autograd.grad(loss, scores)[0]}


def KIND_reward(case):
    inputs = case["inputs"]
    parts, groups = tensor(inputs["reward_components"]), torch.tensor(inputs["group"])
    made = Batch.of(torch.ones(len(parts), 1), group=groups, rewards=torch.zeros(len(parts)).double())
    made = made.replace(reward_components=parts)
    rewards, best = [], []
    for weights in case["config"]["weights"]:
        method = registry.method("rluf", **dict(zip(WEIGHTS, weights, strict=True)))
        found = method.bind(info=info_of(made, *NAMED)).shape(made).rewards
        rewards.append(found)
        best.append([int(torch.where(groups == group, found, -torch.inf).argmax()) for group in groups.unique()])
    return {"rewards": rewards, "best_in_group": best}


def KIND_metric(case):
    inputs = case["inputs"]
    if "scores" in inputs:
        return {"p_love": probability(tensor(inputs["scores"]), case["config"]["negative_keep_share"])}
    chance, reacted = tensor(inputs["p_love"]), tensor(inputs["reacted"])
    return {"auc": auc(chance, reacted), "mean_gap": mean_gap(chance, reacted)}


def random_fields(batch, generator):
    return with_rewards(batch, *torch.rand(3, batch.size, generator=generator).double())


TRAIN = {"reward": ["exact", "0*safety=length:8", "0*love=length:8"]}
HYPER_TRAIN = "(helpfulness='exact', w_help=0.8, w_safe=0.1, kl_beta=0.0)"
