import torch

from cohort import registry
from cohort.signals.overlap import best_bleu, length_aware_bleu
from cohort.types import Batch
from tests.golden.runner import make_batch, tensor
from tests.helpers import info_of, with_rewards

NAMED = ("overlap",)
IGNORE = ("weights",)


def hyper(case):
    w1, w2, _ = case["config"]["weights"]
    return {"w1": w1, "w2": w2}


def _quality(trajectory):
    return best_bleu(trajectory["answer"] or "", [trajectory["reference"]])


def _staged(made, trajectories, quality):
    """The batch with what is known of its trajectories: sound calls, sound format, an answer, and its quality."""
    flags = [
        (float(t["parseable"]), float(t["well_formed"] and t.get("answer", "long") is not None)) for t in trajectories
    ]
    valid, ended = torch.tensor(flags, dtype=torch.float64).T
    bare = made.replace(reward_components=torch.zeros(made.size, 0, dtype=torch.float64))
    return with_rewards(bare.with_rollouts(calls_valid=valid, answered=ended), tensor(quality).double())


def batch(case):
    inputs = dict(case["inputs"])
    trajectories = inputs.pop("trajectories")
    made, leaves = make_batch(inputs)
    return _staged(made, trajectories, [_quality(t) for t in trajectories]), leaves


def KIND_reward(case):
    inputs = case["inputs"]
    if "candidates" in inputs:
        scores = [
            [length_aware_bleu(c, r, **case["config"]) for r in inputs["references"]] for c in inputs["candidates"]
        ]
        best = [best_bleu(c, inputs["references"], **case["config"]) for c in inputs["candidates"]]
        return {"scores": scores, "best_of_references": best}
    out, method = {}, registry.method("prs", **hyper(case))
    for form, quality in (("short", _quality), ("long", lambda t: t["judge"])):
        made = Batch.of(torch.ones(len(inputs[form]), 1), group=torch.zeros(len(inputs[form])).long())
        made = _staged(made, inputs[form], [quality(t) for t in inputs[form]])
        out[f"{form}_rewards"] = method.bind(info=info_of(made, *NAMED)).shape(made).rewards
    return out


def random_fields(batch, generator):
    """Sound calls, an answer, and its quality, of each or not."""
    flags = (torch.rand(2, batch.size, generator=generator) < 0.7).to(torch.float64)
    made = batch.with_rollouts(calls_valid=flags[0], answered=flags[1])
    return with_rewards(made, torch.rand(batch.size, generator=generator).double())


TRAIN = {"reward": ["exact", "0*exact"]}
HYPER_TRAIN = "(quality='exact')"
