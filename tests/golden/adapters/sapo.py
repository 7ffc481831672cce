import torch

from cohort.rollouts.sharing import best, complete, plan, varied
from tests.golden.runner import make_batch

# That every answer counts as the policy's own is the trainer's: answers of others have no log-probabilities of a sampler.
IGNORE = ("old_logp", "aggregation", "kl_coef")
FIELDS = {"group_is_external": None}


def batch(case):
    inputs = {name: value for name, value in case["inputs"].items() if name != "group_is_external"}
    made, leaves = make_batch(inputs)
    return made.replace(old_logp=made.logp.detach()), leaves


def KIND_filter(case):
    inputs, config = case["inputs"], case["config"]
    rewards, count = inputs["pool_rewards"], config["n_external"]
    if "eligible" in case["expected"]:
        eligible = varied(rewards)
        taken = plan(0, count, 0, len(eligible))[1]
        chance = torch.zeros(len(rewards), dtype=torch.float64)
        chance[eligible] = taken / len(eligible)
        return {"eligible": eligible, "inclusion_probability": chance, "n_taken": taken}
    whole = complete(inputs["pool_group_size"], config["num_generations"])
    return {"top_total": best(rewards, count), "uniform_complete_eligible": whole}


def KIND_budget(case):
    names = ("n_local_wanted", "n_external_wanted", "n_local_available", "n_external_eligible")
    plans = [plan(*row) for row in zip(*(case["inputs"][name] for name in names), strict=True)]
    return {"n_local": [local for local, _ in plans], "n_external": [external for _, external in plans]}
