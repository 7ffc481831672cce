from cohort.recipes.tea import prefix_weights, raw_advantages, tail_constant
from cohort.reductions.normal import expected_max, tail_moments
from tests.golden.runner import make_batch


def _constant(run):
    return tail_constant(run.config["target_n"], run.config["alpha"])


def _raw(run):
    return raw_advantages(
        run.batch, alpha=run.config["alpha"], c=_constant(run), prefix_sizes=run.config["prefix_sizes"]
    )


OUTPUTS = {"c_tilde": _constant, "raw_advantages": _raw}


def KIND_advantage(case):
    config, inputs = case["config"], case["inputs"]
    if "settings" in config:
        batch, _ = make_batch(inputs)
        return {
            f"raw_{j}": raw_advantages(
                batch, alpha=given["alpha"], c=config["c_tilde"], prefix_sizes=given["prefix_sizes"]
            )
            for j, given in enumerate(config["settings"])
        }
    moments = [tail_moments(alpha) for alpha in inputs["alpha"]]
    return {
        "expected_max": [expected_max(n) for n in inputs["n"]],
        "tail_mean": [mean for mean, _ in moments],
        "tail_std": [std for _, std in moments],
        "c_tilde": [[tail_constant(n, alpha) for alpha in inputs["alpha"]] for n in inputs["n"]],
        "prefix_weights": [prefix_weights(tuple(sizes)) for sizes in inputs["prefix_sizes"]],
    }


# With rewards 0 and 1 the upper half of a group is soon right throughout; the whole group never is.
HYPER_TRAIN = "(alpha=1.0, target_n=2)"
# On a random batch of rewards 0 and 1 the upper half of every group may be equal.
QUIET = True
