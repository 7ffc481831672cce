import torch

from cohort.rewards.grader import weighted_sum
from cohort.rewards.patterns import format_like
from cohort.rewards.tagged import hits, same_action, same_answer
from cohort.signals.thoughts import skips_thought, tag_format, with_dropout
from tests.golden.runner import make_batch, tensor

OUTPUTS = {"skip_ratio": lambda run: run.prepared.metrics["skip_ratio"]}


def batch(case):
    """The run's rewards are the sum of format and accuracy, both of weight 1."""
    inputs = dict(case["inputs"])
    parts = zip(inputs.pop("format"), inputs["accuracy"], strict=True)
    return make_batch({**inputs, "rewards": [weighted_sum((1.0, 1.0), each) for each in parts]})


def KIND_data(case):
    config, inputs = case["config"], case["inputs"]
    texts, dropped = with_dropout(
        inputs["thoughts"],
        inputs["answers"],
        tensor(inputs["uniform"]),
        dropout=config["dropout"],
        tag=config["answer_tag"],
    )
    return {"texts": texts, "dropped": [int(each) for each in dropped]}


def KIND_reward(case):
    config, inputs = case["config"], case["inputs"]
    if "predictions" in inputs:
        both = list(zip(inputs["predictions"], inputs["gold"], strict=True))
        return {"type": [same_action(*each) for each in both], "value": [hits(*each, **config) for each in both]}
    texts, tag = inputs["texts"], config["answer_tag"]
    form = format_like(tag_format(tag))(texts)
    right = [float(same_answer(*each, tag=tag, symbolic=False)) for each in zip(texts, inputs["gold"], strict=True)]
    rewards = [weighted_sum((1.0, 1.0), each) for each in zip(form, right, strict=True)]
    skipped = [int(skips_thought(text)) for text in texts]
    return {"format": form, "accuracy": right, "rewards": rewards, "skipped": skipped}


def random_fields(batch, generator):
    return batch.with_rollouts(skipped=torch.randint(0, 2, (batch.size,), generator=generator).double())
