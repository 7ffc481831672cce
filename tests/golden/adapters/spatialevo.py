from fractions import Fraction

import torch

from cohort.axes.kinds import counted, task_weights
from cohort.rewards.graded import count_accuracy, relative_accuracy
from cohort.rewards.spatial import FORMAT_WEIGHT, LEVELS, OBSERVATION_FLOOR, questioner_reward, solver_reward, validity

# Each role's groups are its own already.
FIELDS = {"role": None}


def states(run):
    return run.method.init(size=run.batch.size, rows=[{"task": "room_size"}] * run.batch.size)


def KIND_curriculum(case):
    config, kinds = case["config"], case["inputs"]["feasible"]
    known = {"prior": config["prior_accuracy"], "prior_count": config["prior_count"], "least": config["min_weight"]}
    stats = torch.zeros(len(kinds), 2, dtype=torch.float64)
    drawn, after = [], []
    for questions in case["inputs"]["questions"]:
        weight = task_weights(stats, **known)
        drawn.append(weight / weight.sum())
        for each in questions:
            if each["task"] in kinds:
                mean = sum(each["accuracies"]) / len(each["accuracies"]) * each["valid"]
                target = config["targets"].get(each["task"])
                stats = counted(stats, kinds.index(each["task"]), mean, each["duplicates"], target)
        after.append(dict(zip(kinds, stats, strict=True)))
    weight = task_weights(stats, **known)
    return {"probabilities": drawn, "stats": after, "final_probabilities": weight / weight.sum()}


def KIND_reward(case):
    assert case["config"]["format_weight"] == FORMAT_WEIGHT
    inputs = case["inputs"]
    if case["name"] == "questioner_reward":
        assert case["config"]["observation_floor"] == OBSERVATION_FLOOR
        rows = inputs["format_validity_observation_valid_count_badtags"]
        return {
            "validity_factor": [
                validity(task, bool(valid), truth) for task, valid, truth in inputs["task_valid_truth"]
            ],
            "rewards": [
                questioner_reward(form, worth, seen, valid=bool(valid), questions=count, tags=bool(tags))
                for form, worth, seen, valid, count, tags in rows
            ],
        }
    rows = inputs["valid_answertags_othertags_content"]
    return {
        "relative_accuracy": [relative_accuracy(Fraction(a), Fraction(b), LEVELS) for a, b in inputs["numeric"]],
        "count_reward": [count_accuracy(Fraction(a), Fraction(b)) for a, b in inputs["counts"]],
        "rewards": [solver_reward(content, valid=bool(valid), answers=n, others=m) for valid, n, m, content in rows],
    }
