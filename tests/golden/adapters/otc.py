import torch

from cohort import registry
from cohort.recipes.otc import optimal_calls, tool_factor
from tests.golden.runner import make_batch

FIELDS = {"base_reward": ("rewards", "rollout"), "remembered": None}
KEY = "shaping/tool_efficiency"


def _by_label(batch, state):
    """n by ascending id of the group, None where no correct rollout is known."""
    least = optimal_calls(batch, state)[batch.groups.labels.argsort()]
    return [None if n == torch.inf else n for n in least.tolist()]


OUTPUTS = {"optimal_calls": lambda run: _by_label(run.batch, run.states[KEY])}


def _least(remembered):
    return torch.tensor([torch.inf if n is None else n for n in remembered], dtype=torch.float64)


def _batch(inputs):
    """Rows of the data set stand in the order of the ids."""
    import tests.golden.adapters.otc as here

    batch, _ = make_batch(inputs, here)
    return batch.with_rollouts(row=batch.groups.labels.argsort().argsort()[batch.groups.index])


def KIND_reward(case):
    config, inputs = case["config"], case["inputs"]
    if "remembered" in inputs:
        method, batch = registry.method("otc", memory=True, **config), _batch(inputs)
        states = {KEY: {"least": _least(inputs["remembered"])}}
        return {"optimal_calls": _by_label(batch, states[KEY]), "rewards": method.bind(states).shape(batch).rewards}
    calls = torch.tensor(inputs["m"], dtype=torch.float64)
    if "n" not in inputs:
        return {"r_tool": tool_factor(calls, None, c=config["c"])}
    least = torch.tensor(inputs["n"], dtype=torch.float64)
    return {"r_tool": tool_factor(calls[:, None], least.expand(len(calls), -1), c=config["c"])}


def KIND_state(case):
    method = registry.method("otc", memory=True)
    visits = case["inputs"]["visits"]
    states, after = method.init(size=len(set(visits[0]["group"]))), []
    for visit in visits:
        states = method.bind(states).on_rollouts(_batch(visit), [])
        after.append([None if n == torch.inf else n for n in states[KEY]["least"].tolist()])
    return {"optimal_calls_after_visit": after}


def random_fields(batch, generator):
    calls = torch.randint(0, 5, (batch.size,), generator=generator).to(torch.float64)
    return batch.with_rollouts(tool_calls=calls)


# Every tilde of the thought stands for a call.
TRAIN = {"thought": True}
HYPER_TRAIN = "(call='~')"
