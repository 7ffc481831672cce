import torch

from cohort import registry
from cohort.recipes.arspo import control, task_map, task_weight
from tests.golden.runner import make_batch, tensor

# A data set of two tasks, the second through the exponential map, as far as a reward of 0 or 1 can show it.
HYPER_TRAIN = "(maps=('identity', 'exp'), warmup_steps=3, window_steps=3)"
TRAIN = {"lr": 4e-3}
# The lower bound follows from dividing by the smallest weight.
IGNORE = ("l_min",)


def batch(case):
    inputs = {k: v for k, v in case["inputs"].items() if k not in ("performance", "task_of_group", "task_weights")}
    made, leaves = make_batch({**inputs, "rewards": case["inputs"]["performance"]})
    return made.with_rollouts(task=torch.tensor(case["inputs"]["task_of_group"])[made.group]), leaves


def states(run):
    made = run.method.init(size=1)
    made["credit/task_weight"]["weights"] = tensor(run.inputs["task_weights"])
    return made


def _weight(run):
    ones = torch.ones(run.batch.mask.shape, dtype=torch.float64)
    return task_weight(run.batch, ones, run.states["credit/task_weight"])[:, 0]


OUTPUTS = {"advantages": lambda run: run.scatter(run.assigned["outcome_advantage"]), "rollout_weights": _weight}


def KIND_credit(case):
    inputs, config = case["inputs"], {k: v for k, v in case["config"].items() if k != "l_min"}
    baseline = tensor(inputs["baseline"])
    weights = tensor(inputs.get("initial_weights", [1.0] * len(baseline)))
    past, steps = tensor(inputs.get("past", inputs["baseline"])), []
    for given in inputs["window_means"]:
        mean = tensor(given)
        weights, gain, rules = control(weights, baseline, past, mean, **config)
        past = mean
        steps.append({"gain": gain, "rules": rules, "weights": weights})
    return {"steps": steps}


def KIND_reward(case):
    made, _ = make_batch({"rewards": case["inputs"]["performance"]})
    made, a = made.with_rollouts(task=torch.zeros(made.size, dtype=torch.int64)), case["config"]["a"]
    return {name: task_map(made, maps=(name,), a=a) for name in ("identity", "exp")}


def random_fields(batch, generator):
    """Rollouts of a group belong to one task."""
    tasks = len(registry.method("arspo").credit[0].hyper["maps"])
    return batch.with_rollouts(task=(batch.group + int(torch.randint(tasks, (), generator=generator))) % tasks)
