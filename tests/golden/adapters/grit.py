from cohort.recipes.grit import is_right
from cohort.rewards.listed import boxes_in_thought
from cohort.rewards.texts import bleu, tags
from cohort.signals import wording
from cohort.types import StepInfo
from tests.golden.runner import make_batch, tensor

PARTS = ("bleu", "answer_format", "think_format", "region", "repetition", "judge_score")
NAMED = ("judge",)
HYPER = {"judge": "judge"}
OUTPUTS = {"judge_binary": lambda run: is_right(run.batch["reward_components"][:, -1])}


def info(case):
    return StepInfo(reward_weights=(1.0,) * len(PARTS))


def batch(case):
    """The run's rewards, of which the judge's is the last, and their sum."""
    inputs = dict(case["inputs"])
    parts = tensor([inputs.pop(name) for name in PARTS]).T
    made, leaves = make_batch(inputs)
    return made.replace(rewards=parts.sum(1), reward_components=parts), leaves


def _scaled(weight, values):
    return [weight * value for value in values]


def KIND_reward(case):
    inputs = case["inputs"]
    if "predictions" in inputs:
        return {"bleu1": [wording.bleu1(*pair) for pair in zip(inputs["predictions"], inputs["gold"], strict=True)]}
    if "words" in inputs:
        pairs = zip(inputs["words"], inputs["token_ids"], strict=True)
        length = case["config"]["ngram"]
        return {"rewards": _scaled(0.5, (wording.unrepeated(*pair, length) for pair in pairs))}
    texts, gold = inputs["texts"], inputs["gold"]
    return {
        "answer_format": _scaled(0.5, tags("answer")(texts)),
        "think_format": _scaled(0.5, tags("think,rethink")(texts)),
        "boxes": [wording.boxes_in_thought(text) for text in texts],
        "region_counting": boxes_in_thought(texts, count=gold),
        "region_plain": boxes_in_thought(texts),
        "bleu": _scaled(0.1, bleu(texts, answer=gold)),
    }
