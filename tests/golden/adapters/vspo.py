import torch

from cohort.recipes.vspo import draw_probabilities, smoothing, task_values
from tests.golden.runner import make_batch

# Rows of a group are in the order of the batch, and groups are drawn in order of first appearance.
ORDERED = True
IGNORE = ("smoothing",)


def _groups(batch, flags):
    return batch.groups.labels[flags].sort().values


def _by_label(batch, values):
    return values[batch.groups.labels.argsort()]


def batch(case):
    """The draws that pick the given groups: the middle of each one's stretch of [0, 1)."""
    inputs = case["inputs"]
    made, leaves = make_batch({k: v for k, v in inputs.items() if k != "chosen_groups"})
    values, flat = task_values(made, r_max=case["config"]["r_max"])
    probability = draw_probabilities(values, flat)
    reach = probability.cumsum(0)
    middle = reach - probability / 2
    place = {int(label): i for i, label in enumerate(made.groups.labels)}
    draw = torch.zeros(made.size, dtype=torch.float64)
    for label, chosen in zip(_groups(made, flat).tolist(), inputs["chosen_groups"], strict=True):
        draw[made.group == label] = middle[place[chosen]]
    return made.with_rollouts(draw=draw), leaves


def _copies(run):
    first = [int((run.batch.group == label).nonzero()[0]) for label in run.batch.groups.labels.sort().values]
    return run.assigned["copies"][first]


def _damped(run):
    """The same at every token of a rollout; of one without tokens, what they would have."""
    made = run.trained
    there = torch.where(made.mask, made.advantages, -torch.inf).amax(1)
    return torch.where(made.mask.any(1), there, made["outcome_advantage"] * smoothing(made["copies"]))


OUTPUTS = {"source_rows": lambda run: run.kept_after, "copies": _copies, "advantages": _damped}


def KIND_filter(case):
    inputs, config = case["inputs"], case["config"]
    out = {}
    for name, rewards in inputs.items():
        if name == "group":
            continue
        made, _ = make_batch({"group": inputs["group"], "rewards": [float(r) for r in rewards]})
        values, flat = task_values(made, r_max=config["r_max"])
        found = {
            "values": _by_label(made, values),
            "replaced": _groups(made, flat),
            "candidates": _groups(made, ~flat),
            "probabilities": _by_label(made, draw_probabilities(values, flat)),
        }
        prefix = {"rewards": "", "dense_rewards": "dense_"}.get(name, f"{name}_")
        out |= {prefix + key: value for key, value in found.items()}
    return out


def KIND_advantage(case):
    return {"factor": smoothing(torch.tensor(case["inputs"]["copies"], dtype=torch.float64))}


def random_fields(batch, generator):
    return batch.with_rollouts(draw=torch.rand(batch.size, generator=generator, dtype=torch.float64))
