import torch

from cohort.recipes.hapo import by_nature, token_average
from cohort.signals.entropy import EntropyScale, entropy_scale, entropy_temperature, scaled_entropy
from tests.golden.runner import make_batch


def _nature(run, which):
    """One of h, the two bounds and A', 0 at masked tokens."""
    config = run.config
    how = {"pivot": config["entropy_pivot"], "low": config["clip_low"], "high": config["clip_high"]}
    ratio = run.method.stage("ratio")(run.trained)
    found = by_nature(
        run.trained, ratio, run.trained.advantages, alpha=config["clip_alpha"], beta=config["adv_beta"], **how
    )
    return torch.where(run.trained.mask, found[which], 0.0)


OUTPUTS = {
    "group_advantages": lambda run: run.trained["outcome_advantage"],
    "h_hat": lambda run: _nature(run, 0),
    "clip_low": lambda run: _nature(run, 1),
    "clip_high": lambda run: _nature(run, 2),
    "advantages": lambda run: _nature(run, 3),
}


def KIND_credit(case):
    entropy = torch.tensor(case["inputs"]["entropy"], dtype=torch.float64)
    mask = torch.tensor(case["inputs"]["mask"]).bool()
    scale = entropy_scale(entropy, mask, pivot=case["config"]["entropy_pivot"])
    return {**scale._asdict(), "h_hat": torch.where(mask, scaled_entropy(entropy, scale), 0.0)}


def KIND_rollout(case):
    inputs, config = case["inputs"], case["config"]
    p = torch.tensor(inputs["probabilities"], dtype=torch.float64)
    entropy = -torch.special.xlogy(p, p).sum(-1)
    scale = EntropyScale(*(inputs[name] for name in EntropyScale._fields))
    how = {"base": config["temperature"], "scale": scale}
    return {
        "temperature": entropy_temperature(entropy, tau=config["temperature_tau"], **how),
        # The first step has no scale; the engine then draws at T0, as with tau 0.
        "temperature_first_step": entropy_temperature(entropy, tau=0.0, **how),
    }


def KIND_advantage(case):
    batch, _ = make_batch(case["inputs"])
    config = case["config"]
    value, fallback = token_average(batch, fallback_limit=config["fallback_limit"], eps=config["adv_eps"])
    return {"advantages": value, "fallback": fallback[batch.groups.index].double()}


# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "a quantile of all entropies"
