import math

import torch

from cohort.axes import served
from cohort.signals.settings import diversity, smoothed
from tests.golden.runner import make_batch, tensor

NAMED = ("format",)
ELSEWHERE = "it is trained behind prompts that ask for a description, where tests/recipes/test_syn_grpo.py measures it"


def hyper(case):
    return {"form": "format"}


def batch(case):
    inputs = dict(case["inputs"])
    form = tensor(inputs.pop("format")).double()
    inputs["diversity"] = [math.nan if value is None else value for value in inputs["diversity"]]
    made, leaves = make_batch(inputs)
    return made.with_rollouts(reward_components=torch.stack([made["accuracy"], form], 1)), leaves


def KIND_reward(case):
    found = [float(diversity(tensor(group).double())) for group in case["inputs"]["accuracy"]]
    means, mean = [], None
    for value in found:
        mean = smoothed(mean, value, keep=case["config"]["keep"])
        means.append(mean)
    return {"diversity": found, "smoothed": means}


def KIND_curriculum(case):
    config, state, trace = case["config"], served.empty(), []
    for name, argument in case["inputs"]["operations"]:
        drawn = None
        if name == "request":
            state = served.requested(state, argument)
        elif name == "finish":
            state = served.finished(state, argument, capacity=config["capacity"])
        else:
            many = served.share_of(state, config["batch"], config["synthetic_share"])
            drawn, state = served.taken(state, range(many))
            drawn += case["inputs"]["originals"][: config["batch"] - many]
        trace.append({**state, "batch": drawn})
    return {"trace": trace}


def random_fields(batch, generator):
    """Some questions' answers were not tried yet."""
    found = torch.rand(batch.size, generator=generator, dtype=torch.float64)
    unknown = torch.rand(batch.size, generator=generator) < 0.3
    return batch.with_rollouts(diversity=torch.where(unknown, torch.nan, found))
