import torch

from cohort import registry
from cohort.recipes.fg_expo import gaussian_weights, kl_coefficient
from cohort.types import Batch


def _shape(config):
    return {k: config[k] for k in ("beta_min", "beta_max", "steepness", "midpoint")}


OUTPUTS = {
    "batch_accuracy": lambda run: run.states["regularizer/adaptive_kl"]["accuracy"],
    "kl_beta": lambda run: kl_coefficient(run.states["regularizer/adaptive_kl"]["accuracy"], **_shape(run.config)),
}
# The estimator is k3, as the method says.
IGNORE = ("kl",)


def KIND_regularizer(case):
    return {"kl_beta": [kl_coefficient(a, **_shape(case["config"])) for a in case["inputs"]["batch_accuracy"]]}


def _probability(accuracy, config):
    weights = gaussian_weights(accuracy, center=config["center"], sigma=config["sigma"], floor=config["floor"])
    return weights / weights.sum()


def KIND_curriculum(case):
    config, inputs = case["config"], case["inputs"]
    if "accuracy" in inputs:
        accuracy = torch.tensor(inputs["accuracy"], dtype=torch.float64)
        weight = gaussian_weights(accuracy, center=config["center"], sigma=config["sigma"])
        return {"weight": weight, "probability": _probability(accuracy, config)}
    method = registry.method("fg-expo", **config)
    states = method.init(size=inputs["questions"])
    out = []
    for step in inputs["steps"]:
        row = torch.tensor([q for q, outcomes in step for _ in outcomes])
        accuracy = torch.tensor([o for _, outcomes in step for o in outcomes], dtype=torch.float64)
        batch = Batch.of(torch.ones(len(row), 1), group=row, accuracy=accuracy, rewards=accuracy)
        states = method.bind(states).on_rollouts(batch.with_rollouts(row=row), [])
        known = states["curriculum/gaussian"]["accuracy"]
        out.append({"accuracy": known, "probability": _probability(known, config)})
    return {"states": out}
