from cohort import registry
from cohort.axes.advantage import component_advantages, weighted_sum
from tests.golden.runner import make_batch

RENAME = {"eps": "adv_eps"}


def _components(run):
    return component_advantages(run.batch, eps=run.config["eps"], ddof=run.config["std_ddof"])


OUTPUTS = {
    "component_advantages": _components,
    "pre_batch_norm": lambda run: weighted_sum(_components(run), tuple(run.config["weights"]), run.info),
}


def KIND_reward(case):
    config, batch = (
        case["config"],
        make_batch({**case["inputs"], "rewards": [0.0] * len(case["inputs"]["reward_components"])})[0],
    )
    method = registry.method("gdpo", condition=(config["target"], config["condition_on"], config["threshold"]))
    return {"conditioned": method.bind().shape(batch)["reward_components"]}
