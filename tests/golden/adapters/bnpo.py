from cohort import registry
from cohort.recipes.bnpo import fitted, mapped, normalised, parameters, success_rates, weights
from tests.golden.runner import Run, make_batch


def _mapped(config, values):
    return mapped(values, reward_min=config["reward_min"], reward_max=config["reward_max"])


def _parts(batch, config):
    p, there = success_rates(_mapped(config, batch.rewards[:, None]), batch)
    a, b = fitted(p, there)
    alpha, beta = parameters(a, b)
    weight = weights(p, alpha, beta, cap=config["weight_cap"])[:, 0]
    return {
        "pass_rates": p[:, 0],
        "moment_a": a[0],
        "moment_b": b[0],
        "alpha": alpha[0],
        "beta_param": beta[0],
        "weights": weight,
    }


def _part(name):
    return lambda run: _parts(run.batch, run.config)[name]


OUTPUTS = {name: _part(name) for name in ("pass_rates", "moment_a", "moment_b", "alpha", "beta_param", "weights")}


def _advantages(case, inputs, **more):
    config = {k: v for k, v in case["config"].items() if k != "alpha_beta"}
    batch, _ = make_batch(inputs)
    return registry.method("bnpo", **config, **more).bind().assign(batch)["outcome_advantage"]


def KIND_advantage(case):
    config, inputs, want = case["config"], case["inputs"], case["expected"]
    if "reward_components" in inputs:
        batch, _ = make_batch({**inputs, "rewards": [0.0] * len(inputs["group"])})
        values = _mapped(config, batch["reward_components"])
        return {
            "component_advantages": normalised(values, batch, cap=config["weight_cap"]),
            "advantages": registry.method("bnpo", decompose=True, **config).bind().assign(batch)["outcome_advantage"],
        }
    out = {}
    for suffix in (name.removeprefix("rewards_") for name in inputs if name.startswith("rewards_")):
        given = {name: inputs[f"{name}_{suffix}"] for name in ("group", "rewards")}
        out[f"advantages_{suffix}"] = _advantages(case, given)
    for pair in config.get("alpha_beta", []):
        name = "_".join(f"{x:g}" for x in pair)
        out[f"advantages_{name}"] = _advantages(case, inputs, alpha_beta=tuple(pair))
        if "weights" in want:
            batch, _ = make_batch(inputs)
            p, _ = success_rates(_mapped(config, batch.rewards[:, None]), batch)
            alpha, beta = (p.new_full((1,), x) for x in pair)
            out["weights"] = weights(p, alpha, beta, cap=config["weight_cap"])[:, 0]
    if not out:
        run = Run("bnpo", case, None)
        out = {**_parts(run.batch, config), "advantages": run.advantages}
    return out
