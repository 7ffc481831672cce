import torch

from cohort import registry
from cohort.axes.curriculum import highest
from cohort.recipes.vade import expected_information_gain, information_gain
from cohort.types import Batch

KEY = "curriculum/most_informative"


def _after(counts, config, size, correct):
    """Counts after a step in which `correct` says how many rollouts of each drawn prompt were right."""
    rows = torch.tensor([row for row, _ in correct]).repeat_interleave(size)
    right = torch.tensor([float(k < n) for _, n in correct for k in range(size)], dtype=torch.float64)
    batch = Batch.of(torch.ones(len(rows), 1), group=rows, accuracy=right, rewards=right).with_rollouts(row=rows)
    rates = {name: config[name] for name in ("lambda_selected", "lambda_unselected")}
    return registry.method("vade", **rates).bind({KEY: {"counts": counts}}).on_rollouts(batch, [])[KEY]["counts"]


def KIND_curriculum(case):
    config, inputs = case["config"], case["inputs"]
    given = ("initial_alpha", "initial_beta") if "initial_alpha" in inputs else ("alpha", "beta")
    counts = torch.tensor([inputs[name] for name in given], dtype=torch.float64).T
    if "draws" not in inputs:
        alpha, beta = (counts + 1).unbind(1)
        made = torch.distributions.Beta(alpha, beta)
        gain = expected_information_gain(*counts.unbind(1))
        return {"mean": made.mean, "variance": made.variance, "expected_info_gain": gain}
    if "correct" not in inputs:
        gain = information_gain(torch.tensor(inputs["draws"], dtype=torch.float64))
        correct = [(int(row), right) for row, right in inputs["correct_counts"].items()]
        after = _after(counts, config, config["group_size"], correct)
        picked = highest(gain, config["batch"])
        return {"info_gain": gain, "selected": picked, "alpha": after[:, 0], "beta": after[:, 1]}
    out = {"selected": [], "alpha": [], "beta": []}
    for draws, right in zip(inputs["draws"], inputs["correct"], strict=True):
        picked = highest(information_gain(torch.tensor(draws, dtype=torch.float64)), config["batch"]).tolist()
        counts = _after(counts, config, config["group_size"], list(zip(picked, right, strict=True)))
        for name, value in zip(out, (picked, *counts.unbind(1)), strict=True):
            out[name].append(value)
    return out
