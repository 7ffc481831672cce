import sys

from cohort.recipes.adora import difficulty_advantage, group_weights, length_advantage
from tests.golden.runner import Run, make_batch


def _weights(batch, config):
    taken = ("variant", "correct_above", "tau", "max_len", "weight_tas", "weight_tds")
    return group_weights(batch, **{k: v for k, v in config.items() if k in taken})


OUTPUTS = {"group_weights": lambda run: _weights(run.batch, run.config)}


def KIND_advantage(case):
    """The weights and weighted advantages of each variant that a case asks for."""
    config, expected = case["config"], case["expected"]
    asked = [key.removeprefix("weights_") for key in expected if key.startswith("weights_")]
    out = {}
    for variant in asked or [config["variant"]]:
        run = Run("adora", {**case, "config": {**config, "variant": variant}}, sys.modules[__name__])
        suffix = f"_{variant}" if asked else ""
        out[f"advantages{suffix}"] = run.advantages
        out[f"weights{suffix}" if asked else "group_weights"] = _weights(run.batch, run.config)
    batch, _ = make_batch(case["inputs"])
    if "length_advantage" in expected:
        above = config["correct_above"]
        out["length_advantage"] = length_advantage(batch, variant="length", correct_above=above)
        out["difficulty_advantage"] = difficulty_advantage(batch, correct_above=above, tau=config["tau"])
    return out
