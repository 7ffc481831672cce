import torch

from cohort import registry
from cohort.recipes.format_length import length_reward
from cohort.types import Batch


def KIND_reward(case):
    """f, and the method's own shaping for the four combinations of the two formats."""
    config = case["config"]
    lengths = torch.tensor(case["inputs"]["length"], dtype=torch.float64)
    out = {"length_reward": length_reward(lengths, max_len=config["max_len"], p=config["p"])}
    method, zero = registry.method("format-length", **config), torch.zeros_like(lengths)
    plain = Batch.of(torch.ones(len(lengths), 1), group=torch.arange(len(lengths)), rewards=zero)
    for name, answer, think in (
        ("valid_format", 1, 0),
        ("valid_format_and_think", 1, 1),
        ("invalid_format", 0, 0),
        ("invalid_format_with_think", 0, 1),
    ):
        batch = plain.with_rollouts(length=lengths, answer_format=zero + answer, think_format=zero + think)
        out[name] = method.bind().shape(batch).rewards
    return out


def random_fields(batch, generator):
    flags = torch.randint(0, 2, (2, batch.size), generator=generator).to(torch.float64)
    return batch.with_rollouts(answer_format=flags[0], think_format=flags[1])


TRAIN = {"thought": True}
ELSEWHERE = "no label is read, so that nothing pulls to the right digit; see tests/recipes/test_quantities.py"
