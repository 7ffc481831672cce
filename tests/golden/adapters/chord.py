import torch

from cohort.recipes.chord import expert_weight, share
from tests.golden.runner import make_batch

RENAME = {"mu": "peak"}
IGNORE = ("aggregation",)


def hyper(case):
    """A constant mu."""
    return {"valley": case["config"]["mu"]}


def batch(case):
    """Experts' texts, each in a group of its own, as training puts them."""
    made, leaves = make_batch({name: value for name, value in case["inputs"].items() if name != "is_expert"})
    expert = torch.tensor(case["inputs"]["is_expert"]).bool()
    group = torch.where(expert, torch.arange(made.size) + 10**6, made.group)
    made = made.replace(group=group).with_rollouts(preference=expert.double())
    return made.with_rollouts(row=made.groups.index), leaves


def _own(run):
    mu = run.config["mu"]
    return run.loss.policy / (1 - mu)


OUTPUTS = {
    "expert_weight": lambda run: expert_weight(run.trained, weighting=run.config["weighting"]),
    "policy_loss": _own,
    "sft_loss": lambda run: sum(run.loss.regularizers.values()) / run.config["mu"],
}


def KIND_state(case):
    return {"mu": [[share(step, **each) for step in case["inputs"]["step"]] for each in case["config"]["settings"]]}


def random_fields(batch, generator):
    preference = torch.randint(-1, 2, (batch.size,), generator=generator)
    return batch.with_rollouts(preference=preference.to(torch.float64))


# Experts' texts of two of the eight letters alone.
TRAIN = {"pairs": [{"prompt": letter, "chosen": right, "rejected": "9"} for letter, right in (("a", "0"), ("b", "3"))]}
