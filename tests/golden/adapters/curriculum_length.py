import torch

from cohort import registry
from cohort.recipes.curriculum_length import budget, find_spans, length_reward
from cohort.types import Batch, StepInfo
from tests.golden.runner import make_batch
from tests.helpers import access_of

# It stands in `info`.
IGNORE = ("step",)


def info(case):
    return StepInfo(step=case["config"]["step"])


OUTPUTS = {"budget": lambda run: budget(run.config["step"], **run.method.shaping[0].hyper["plan"])}


def KIND_curriculum(case):
    plan = registry.method("curriculum-length", **case["config"]).shaping[0].hyper["plan"]
    return {"budget": [budget(step, **plan) for step in case["inputs"]["steps"]]}


def _totals(case):
    """The method's shaping in its first step, with the budget that the case gives."""
    config = dict(case["config"])
    made = registry.method("curriculum-length", schedule="exponential", start=config.pop("target"), **config)
    count = len(case["inputs"]["length"])
    whole, _ = make_batch({**case["inputs"], "group": [0] * count, "mask": [[1]] * count})
    return {"rewards": made.bind().shape(whole).rewards}


def KIND_reward(case):
    config, inputs = case["config"], case["inputs"]
    if "texts" in inputs:
        texts = inputs["texts"]
        zero = torch.zeros(len(texts), dtype=torch.float64)
        made = Batch.of(torch.ones(len(texts), 1), group=torch.arange(len(texts)), rewards=zero, accuracy=zero)
        made = find_spans(made, access_of(texts))
        method = registry.method("curriculum-length", lambda_c=0.0, lambda_l=0.0, lambda_f=1.0, **config)
        return {"reward": method.bind().shape(made).rewards, **{k: made[k] for k in ("has_think", "has_answer")}}
    if "correct" in inputs:
        return _totals(case)
    lengths = torch.tensor(inputs["length"], dtype=torch.float64)
    return {shape: length_reward(lengths, **config, shape=shape) for shape in ("triangle", "band")}


def random_fields(batch, generator):
    flags = torch.randint(0, 2, (2, batch.size), generator=generator).to(torch.float64)
    return batch.with_rollouts(has_think=flags[0], has_answer=flags[1])


# The micro policy knows no sentence about tokens; the guidance has a test of its own.
TRAIN = {"thought": True}
HYPER_TRAIN = "(sentence='', start=4, interval=10, lambda_c=0.6, lambda_l=0.3)"
