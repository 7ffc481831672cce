from cohort.recipes.knapsack import allocate, expected_rollouts, rollouts_for, value
from cohort.reductions.groups import group_mean

OUTPUTS = {"new_success_rate": lambda run: group_mean(run.batch["accuracy"], run.batch.groups)}


def KIND_budget(case):
    config, inputs = case["config"], case["inputs"]
    if "level" in inputs:
        return {
            "value": [[value(n, p) for n in inputs["n"]] for p in inputs["p"]],
            "expected_rollouts": [expected_rollouts(p) for p in inputs["p"]],
            "rollouts_for_level": [rollouts_for(p, inputs["level"]) for p in inputs["p"]],
        }
    given = allocate(inputs["p"], **config)
    out = {"allocation": given}
    if "total_value" in case["expected"]:
        each = config["total"] / len(given)
        out["total_value"] = sum(value(n, p) for n, p in zip(given, inputs["p"], strict=True))
        out["uniform_value"] = sum(value(each, p) for p in inputs["p"])
    return out
