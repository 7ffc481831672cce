import torch

from cohort.rewards.choices import KINDS, choice, english
from cohort.rewards.grader import weighted_sum
from tests.golden.runner import make_batch

SECTIONS = {kind.name: kind for kind in KINDS}["sections"]
IGNORE = ("k", "english_weight", "tags", "kl")


def scored(config, responses, gold):
    """What the builtin rewards give the responses."""
    parts = {
        "accuracy": choice(completions=responses, answer=[gold] * len(responses)),
        "structure": SECTIONS.make(",".join(config["tags"]))(completions=responses),
        "english": english(completions=responses),
    }
    weights = (config["k"], 1.0, config["english_weight"])
    return {**parts, "rewards": [weighted_sum(weights, row) for row in zip(*parts.values(), strict=True)]}


def batch(case):
    inputs = dict(case["inputs"])
    rewards = scored(case["config"], inputs.pop("responses"), inputs.pop("gold"))["rewards"]
    made, leaves = make_batch(inputs)
    return made.replace(rewards=torch.tensor(rewards, dtype=torch.float64)), leaves


def KIND_reward(case):
    return scored(case["config"], **case["inputs"])


TRAIN = {"thought": True}
