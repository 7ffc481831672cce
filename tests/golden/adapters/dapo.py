import torch

from cohort import registry
from cohort.axes.shaping import overlong_penalty
from cohort.rollouts.refill import refill
from cohort.types import Batch

# The loss cases give rewards as they are after shaping.
HYPER = {"overlong": False}
IGNORE = ("aggregation", "beta", "eps_std", "std_ddof")


def KIND_filter(case):
    """Dynamic sampling through the loop's refill, with the method's own filter."""
    method = registry.method("dapo")

    def keep(accuracy):
        flat = torch.tensor(accuracy, dtype=torch.float64).flatten()
        group = torch.arange(len(accuracy)).repeat_interleave(len(accuracy[0]))
        batch = Batch.of(torch.ones(len(flat), 1), group=group, accuracy=flat, rewards=flat)
        rows = method.bind().keep(batch)
        return torch.isin(torch.arange(len(flat)), rows).reshape(len(accuracy), -1).all(1).tolist()

    rounds = case["inputs"]["accuracy"]
    done = refill(iter(rounds), keep, target=case["config"]["target_prompts"], max_rounds=len(rounds))
    return {"keep_per_round": done.flags, "rounds_used": len(done.rounds), "batch": done.chosen}


def KIND_reward(case):
    lengths = torch.tensor(case["inputs"]["lengths"])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    zero = torch.zeros(len(lengths), dtype=torch.float64)
    batch = Batch.of(mask, group=torch.arange(len(lengths)), rewards=zero)
    shaped = registry.method("dapo", **case["config"]).bind().shape(batch).rewards
    assert torch.equal(shaped, overlong_penalty(lengths.double(), **case["config"]))
    return {"penalty": shaped}
