import sys

import torch

from cohort import registry
from cohort.recipes.g2rpo import band_penalty
from cohort.types import Batch
from tests.golden.runner import make_batch

FIELDS = {"task_of_group": None}
# The vectors number the tasks, and discard no group.
HYPER = {"task": "task", "discard_uniform": False}


def batch(case):
    made, leaves = make_batch(case["inputs"], sys.modules[__name__])
    tasks = torch.tensor(case["inputs"].get("task_of_group", [0] * made.groups.count))
    return made.with_rollouts(task_id=tasks[made.groups.index]), leaves


def _band(run):
    return band_penalty(run.trained, bounds=run.config["entropy_bounds"])


OUTPUTS = {
    "task_entropy": lambda run: _band(run)[0],
    "entropy_loss": lambda run: _band(run)[1],
    "policy_loss": lambda run: run.loss.policy,
}


def KIND_reward(case):
    names = ("l_min", "l_plateau_start", "l_plateau_end", "l_max")
    method = registry.method("g2rpo", lengths=(tuple(case["config"][name] for name in names),), length_weight=1.0)
    lengths = torch.tensor(case["inputs"]["lengths"], dtype=torch.float64)
    made = Batch.of(torch.ones(len(lengths), 1), group=torch.arange(len(lengths)), rewards=torch.zeros_like(lengths))
    made = made.with_rollouts(length=lengths, task_id=torch.zeros(len(lengths), dtype=torch.int64))
    return {"shaping": method.bind().shape(made).rewards}


HYPER_TRAIN = "(task='task', lengths=((0, 1, 3, 5), (0, 2, 2, 5)), entropy_bounds=((0.2, 1.0), (0.1, 0.8)))"
