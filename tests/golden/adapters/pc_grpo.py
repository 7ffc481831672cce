import torch

from cohort.recipes.pc_grpo import by_difficulty, consistency_bonus, difficulty_weight, dispersion
from cohort.reductions.groups import group_mean
from cohort.rewards.graded import order_accuracy, puzzle_accuracy
from cohort.signals.votes import answer_count, number_keys
from cohort.types import Groups, StepInfo
from tests.golden.runner import make_batch, tensor

RENAME = {"weight_floor": "floor"}


def KIND_reward(case):
    inputs = case["inputs"]
    if case["name"] == "reasoning_answer_consistency":
        batch, _ = make_batch({"rewards": inputs["rewards"]})
        batch = batch.with_rollouts(reward_components=tensor(inputs["consistent"]).double()[:, None])
        info = StepInfo(reward_names=("consistent",))
        rewards, told = consistency_bonus(batch, bonus=case["config"]["bonus"], info=info)
        return {"rewards": rewards, "rac": told["consistency/share"]}
    nine = zip(inputs["jigsaw9_answers"], inputs["jigsaw9_gold"], strict=True)
    return {
        "jigsaw": [order_accuracy(said, inputs["jigsaw_gold"]) for said in inputs["jigsaw_answers"]],
        "jigsaw9": [puzzle_accuracy(said, ",".join(map(str, gold))) for said, gold in nine],
        "patchfit": [puzzle_accuracy(said, inputs["patchfit_gold"]) for said in inputs["patchfit_answers"]],
        "rotation": [puzzle_accuracy(said, inputs["rotation_gold"]) for said in inputs["rotation_answers"]],
    }


def KIND_curriculum(case):
    rewards, answers = tensor(case["inputs"]["rewards"]).double(), case["inputs"]["answers"]
    ids = number_keys(key for said in answers for key in said)
    size = torch.tensor([len(said) for said in answers])
    groups = Groups(torch.arange(len(answers)).repeat_interleave(size), torch.arange(len(answers)))
    return {
        "weight": [difficulty_weight(rewards.mean(1), floor=floor) for floor in case["config"]["floor"]],
        "dispersion": dispersion(answer_count(ids, groups).double(), size),
    }


def _weight(run):
    assert by_difficulty in [use.fn for use in run.method.credit]
    return difficulty_weight(group_mean(run.batch["accuracy"], run.batch.groups), floor=run.config["weight_floor"])


OUTPUTS = {"weight": _weight, "base_advantages": lambda run: run.assigned["outcome_advantage"]}
