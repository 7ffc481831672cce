import math

import torch

from cohort.axes.sampling import stop_bonus
from cohort.recipes.rest_grpo import task_route
from cohort.rollouts.search import Node, back_up, best_child, uct
from cohort.signals.beginnings import beginning_weights, beginnings
from tests.golden.runner import make_batch


def batch(case):
    """The rewards of the case hold the bonus already."""
    made, leaves = make_batch(case["inputs"])
    return random_fields(made, None), leaves


def KIND_filter(case):
    found = [task_route(rewards, **case["config"]) for rewards in case["inputs"]["rewards"]]
    return {name: list(values) for name, values in zip(("std", "best", "route"), zip(*found, strict=True), strict=True)}


def KIND_guidance(case):
    config, inputs = case["config"], case["inputs"]
    starts = beginnings(inputs["completion"])
    return {
        "prefixes": starts,
        "probabilities": beginning_weights(len(starts), config["alpha"]),
        "draws": [math.ceil(config["sample_ratio"] * length) for length in inputs["lengths"]],
    }


def KIND_reward(case):
    inputs = case["inputs"]
    rows = zip(*(inputs[k] for k in ("test_score", "completion_chars", "chars_before_stop", "stop_chars")), strict=True)
    rewards = []
    for score, whole, before, symbol in rows:
        trailing = whole - before - symbol if before < whole else None
        rewards.append(score + stop_bonus(trailing, **case["config"]))
    return {"rewards": rewards}


def KIND_rollout(case):
    config, inputs = case["config"], case["inputs"]
    root = Node("", children=[Node(str(i)) for i in range(config["children"])])
    back_up([root], len(inputs["root_rewards"]), sum(inputs["root_rewards"]))
    out = {name: [] for name in ("scores", "chosen", "child_value", "root_value", "root_visits")}
    how = {"exploration": config["exploration"], "eps": config["eps"]}
    for rewards in inputs["rewards"]:
        scores = [uct(child, root, **how) for child in root.children]
        child = best_child(root, **how)
        back_up([root, child], len(rewards), sum(rewards))
        values = (scores, root.children.index(child), child.value, root.value, root.visits)
        for name, value in zip(out, values, strict=True):
            out[name].append(value)
    return out


def random_fields(made, generator):
    return made.with_rollouts(stop_bonus=torch.zeros(made.size, dtype=made.dtype))


# The micro task has answers of one line: behind a whole one there is nothing to learn.
HYPER_TRAIN = "(samples=6, sample_ratio=0.0)"
