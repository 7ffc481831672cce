import sys
from fractions import Fraction

import torch

from cohort import registry
from cohort.axes.objective import replayed_pairs
from cohort.reductions.groups import group_mean
from cohort.rewards.graded import relative_accuracy
from cohort.signals.verified import easy_prompts, verified_pairs
from cohort.types import Batch
from tests.golden.runner import Run, make_batch, tensor
from tests.helpers import with_rewards

NAMED = ("format",)


def batch(case):
    inputs = dict(case["inputs"])
    if "pairs" in inputs:
        return _replayed(inputs)
    form = tensor(inputs.pop("format_ok")).double()
    made, leaves = make_batch(inputs)
    return with_rewards(made.with_rollouts(reflection=torch.zeros(made.size)), form), leaves


def _replayed(inputs):
    """Each pair as two rows of their own, as a replay gives them."""
    logp = tensor(inputs["logp"]).requires_grad_()
    rows = torch.tensor(inputs["pairs"]).flatten()
    pair = torch.arange(len(rows)) // 2
    made = Batch.of(tensor(inputs["mask"])[rows], logp=logp[rows], group=pair)
    made = made.with_tokens(pair_logp=tensor(inputs["ref_logp"])[rows])
    return made.with_rollouts(paired=torch.tensor([1.0, -1.0]).repeat(len(rows) // 2)), {"logp": logp}


def KIND_loss(case):
    if "pairs" not in case["inputs"]:
        run = Run("veripo", case, sys.modules[__name__])
        return {key: run.output(key) for key in case["expected"]}
    made, leaves = batch(case)
    method = registry.method("veripo", **case["config"])
    loss = method.regularizer[0](made)
    (grad,) = torch.autograd.grad(loss, leaves["logp"])
    assert method.regularizer[0].fn is replayed_pairs
    return {"loss": loss, "grad_logp": grad}


def KIND_filter(case):
    inputs, config = case["inputs"], case["config"]
    given = [tensor(inputs[name]) for name in ("group", "accuracy", "consistent", "repetitive", "length")]
    pairs, reflective = verified_pairs(*given, min_length=config["min_length"])
    return {
        "pairs": [{"group": p.group, "chosen": p.chosen, "rejected": p.rejected, "type": p.kind} for p in pairs],
        "reflective": [{"group": label, "rejected": row} for label, row in reflective],
        **KIND_curriculum(case),
    }


def KIND_curriculum(case):
    inputs = case["inputs"]
    made, _ = make_batch(
        {"group": inputs["group"], "accuracy": inputs["accuracy"], "mask": [[1]] * len(inputs["group"])}
    )
    accuracy = group_mean(made["accuracy"], made.groups)
    easy, count = easy_prompts(accuracy, case["config"]["drop_share"])
    return {"easy_prompts": made.groups.labels[easy], "drop_count": count}


def KIND_reward(case):
    inputs = case["inputs"]
    both = zip(inputs["prediction"], inputs["truth"], strict=True)
    return {
        "accuracy": [relative_accuracy(Fraction(str(said)), Fraction(str(truth)), strict=True) for said, truth in both]
    }


def random_fields(batch, generator):
    made = batch.with_rollouts(
        reflection=torch.zeros(batch.size).double(),
        consistent=torch.ones(batch.size).double(),
        repetitive=torch.zeros(batch.size).double(),
    )
    return with_rewards(made, torch.randint(0, 2, (batch.size,), generator=generator).double())


TRAIN = {"reward": ["exact"]}
HYPER_TRAIN = "(format=None, grpo_steps=4, dpo_steps=2, pairs=16)"
