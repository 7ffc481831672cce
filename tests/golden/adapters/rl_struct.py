from cohort.rewards.grader import weighted_sum
from cohort.rewards.structured import KINDS, bare, fenced, has_keys, valid
from cohort.rewards.texts import length_limit
from tests.golden.runner import make_batch, tensor

IGNORE = ("weights", "component_order")
_FIELDS = KINDS[1].make("words")


def _sum(config, values):
    return weighted_sum([config["weights"][name] for name in values], values.values())


def batch(case):
    """The run's rewards are the weighted sum of the components."""
    inputs, order = dict(case["inputs"]), case["config"]["component_order"]
    rows = [dict(zip(order, row, strict=True)) for row in inputs["reward_components"]]
    made, leaves = make_batch(inputs)
    return made.replace(rewards=tensor([_sum(case["config"], row) for row in rows])), leaves


def KIND_reward(case):
    config, inputs = case["config"], case["inputs"]
    texts = inputs["texts"]
    out = {
        "valid": valid(texts),
        "struct": has_keys(config["required_keys"])(texts),
        "format": (fenced if config["want_fence"] else bare)(texts),
        "correct": _FIELDS(texts, answer=inputs["gold"]),
        "length": length_limit(str(config["max_tokens"]))(texts, [[0] * count for count in inputs["tokens"]]),
    }
    rows = [dict(zip(out, row, strict=True)) for row in zip(*out.values(), strict=True)]
    return {**out, "rewards": [_sum(config, row) for row in rows]}
