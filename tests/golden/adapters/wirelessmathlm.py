import torch

from cohort.rewards.formulas import verified
from cohort.rewards.grader import weighted_sum
from tests.golden.runner import make_batch

IGNORE = ("alpha",)


def combined(alpha, formats, correct):
    return [weighted_sum((1 - alpha, alpha), pair) for pair in zip(correct, formats, strict=True)]


def batch(case):
    inputs = dict(case["inputs"])
    rewards = combined(case["config"]["alpha"], inputs.pop("format"), inputs.pop("correct"))
    made, leaves = make_batch(inputs)
    return made.replace(rewards=torch.tensor(rewards, dtype=torch.float64)), leaves


def KIND_reward(case):
    """One completion at a time, since each has a judge of its own."""
    inputs, rows = case["inputs"], []
    for kind, text, gold, judge in zip(*(inputs[key] for key in ("type", "texts", "gold", "judge")), strict=True):
        (boxed,), (right,) = verified([text], [gold], [kind], lambda pairs, judge=judge: [judge] * len(pairs))
        rows.append((boxed, right))
    formats, correct = map(list, zip(*rows, strict=True))
    weighted = {f"reward_alpha_{alpha:g}": combined(alpha, formats, correct) for alpha in (0.0, 0.1)}
    return {"format": formats, "correct": correct, **weighted}
