import torch

from cohort.reductions.scores import graded_loss
from tests.golden import runner
from tests.golden.runner import make_batch, tensor
from tests.helpers import with_rewards

OBJECTIVES = ("politeness", "meaningfulness", "actionability", "safety")
NAMED = OBJECTIVES


def batch(case):
    inputs = dict(case["inputs"])
    components = tensor(inputs.pop("reward_components"))
    made, leaves = make_batch({**inputs, "rewards": [0.0] * len(components)})
    return made.replace(reward_components=components), leaves


def KIND_loss(case):
    """The loss of the policy, or of the reward model."""
    inputs = case["inputs"]
    if "predictions" not in inputs:
        run = runner.Run("multi-objective-grpo", case, runner.adapter("multi-objective-grpo"))
        return {key: run.output(key) for key in case["expected"]}
    scores = tensor(inputs["predictions"]).requires_grad_()
    loss = graded_loss(scores, tensor(inputs["targets"]), tensor(inputs["label_mask"]))
    return {"loss": loss, "grad_predictions": torch.autograd.grad(loss, scores)[0]}


def random_fields(batch, generator):
    return with_rewards(batch, *torch.rand(4, batch.size, generator=generator).double())


# What is right counts most; the others are what the small policy says.
TRAIN = {"reward": ["exact", "0*length:8"]}
HYPER_TRAIN = "(objectives=('exact', 'length'), weights=(0.9, 0.1), kl_beta=0.0)"
