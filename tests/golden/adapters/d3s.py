import torch

from cohort.recipes.d3s import extremes, scheduled
from cohort.reductions.groups import batch_std
from cohort.types import Groups

# A loss case stands at the start of its run.
RENAME = {"num_rollouts": "num_rollouts_init", "token_fraction": "token_fraction_init"}
# Among equal advantages the earlier rollout is taken.
ORDERED = True


def _token_mask(run):
    batch = run.assigned
    return (batch.loss_mask & torch.isin(torch.arange(batch.size), run.kept_after)[:, None]).double()


OUTPUTS = {"selected_rollouts": lambda run: run.kept_after.sort().values, "token_mask": _token_mask}


def KIND_filter(case):
    out = {"selected": [], "variance": []}
    for row, size in zip(case["inputs"]["advantages"], case["inputs"]["sizes"], strict=True):
        values = torch.tensor(row, dtype=torch.float64)
        chosen = extremes(values, Groups(torch.zeros(len(row), dtype=torch.int64), torch.zeros(1)), size)
        out["selected"].append(chosen.nonzero()[:, 0])
        out["variance"].append(batch_std(values[chosen]) ** 2)
    return out


def KIND_curriculum(case):
    config, progress = case["config"], case["inputs"]["progress"]
    rollouts = [config["num_rollouts_init"], config["num_rollouts_final"]]
    tokens = [config["token_fraction_init"], config["token_fraction_final"]]
    return {
        "num_rollouts": [round(scheduled(p, *rollouts)) for p in progress],
        "token_fraction": [scheduled(p, *tokens) for p in progress],
    }


# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "the tokens with the largest product of advantage and entropy"
