import torch

from cohort.axes.advantage import standardise
from cohort.axes.budget import expect_narrowing, exploration_bonus, narrowing_by_one, spread_of
from cohort.recipes.xrpo import likelihood, unsolved
from cohort.reductions.student import t_quantile
from cohort.signals.features import nearest

RENAME = {"lambda_novelty": "novelty", "kappa_clip": "kappa"}

OUTPUTS = {
    "score": lambda run: likelihood(run.batch)[0],
    "eta": lambda run: likelihood(run.batch)[1],
    "base_advantages": lambda run: standardise(run.batch.rewards, run.batch.groups, eps=run.config["adv_eps"]),
}


def KIND_budget(case):
    config, inputs = case["config"], case["inputs"]
    if "prob_df" in inputs:
        return {"quantile": [t_quantile(p, df) for p, df in inputs["prob_df"]]}
    rewards = inputs["rewards"]
    counts, spreads = list(map(len, rewards)), list(map(spread_of, rewards))
    alpha, explore = config["alpha"], config["lambda"]
    return {
        "std": spreads,
        "uncertainty_reduction": [narrowing_by_one(n, s, alpha) for n, s in zip(counts, spreads, strict=True)],
        "bonus": [exploration_bonus(n, sum(counts), explore) for n in counts],
        "allocation": expect_narrowing(spreads, counts, config["extra"], alpha=alpha, explore=explore),
        "needs_seeding": list(map(unsolved, rewards)),
    }


def KIND_guidance(case):
    inputs, corpus = case["inputs"], torch.tensor(case["inputs"]["corpus"], dtype=torch.float64)
    how = {"count": case["config"]["k"], "least": case["config"]["min_similarity"]}
    asked = {"query_examples": "query", "far_examples": "far_query", "no_match_examples": "no_match_query"}
    return {
        name: nearest(torch.tensor(inputs[query], dtype=torch.float64), corpus, **how) for name, query in asked.items()
    }
