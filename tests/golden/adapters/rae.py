from types import SimpleNamespace

import torch

from cohort import registry
from cohort.recipes.rae import follow
from cohort.types import Batch
from tests.golden.runner import make_batch, tensor

IGNORE = ("start", "aggregation")
FIELDS = {"role": ("agent", "rollout"), "baselines_before": None}
KEY = "advantage/against_role"


def _before(inputs):
    return {f"{game}/{role}": value for game, role, value in inputs.get("baselines_before", ())}


def _rows(baselines):
    return sorted([*map(int, key.split("/")), value] for key, value in baselines.items())


def states(run):
    return {KEY: {"baselines": _before(run.inputs)}}


def batch(case):
    made, leaves = make_batch(case["inputs"], SimpleNamespace(FIELDS=FIELDS))
    met, _ = follow(made, _before(case["inputs"]), case["config"]["decay"])
    return made.with_rollouts(role_baseline=met), leaves


OUTPUTS = {"baselines": lambda run: _rows(run.states[KEY]["baselines"])}


def KIND_state(case):
    """One batch of the state's hook, and the advantages of its rollouts."""
    inputs, decay = case["inputs"], case["config"]["decay"]
    rewards = tensor(inputs["rewards"])
    made = Batch.of(torch.ones(len(rewards), 1), group=torch.arange(len(rewards)), rewards=rewards)
    made = made.with_rollouts(agent=torch.tensor(inputs["role"]), game=torch.tensor(inputs["game"]))
    made = made.with_rollouts(role_baseline=follow(made, _before(inputs), decay)[0])
    method = registry.method("rae", decay=decay)
    bound = method.bind({KEY: {"baselines": _before(inputs)}})
    after = bound.on_rollouts(made, [None] * made.size)
    advantages = method.bind(after).assign(made)["outcome_advantage"]
    return {"advantages": advantages, "baselines": _rows(after[KEY]["baselines"])}


def random_fields(batch, generator):
    """Two roles of two games, with baselines."""
    role, game = torch.randint(0, 2, (2, batch.size), generator=generator)
    baseline = 0.3 * torch.randn(batch.size, generator=generator, dtype=batch.dtype)
    return batch.with_rollouts(agent=role, game=game, role_baseline=baseline)
