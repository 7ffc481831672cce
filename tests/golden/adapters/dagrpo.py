import torch

from cohort import registry
from cohort.recipes.dagrpo import opposite_pairs, unsolved
from cohort.types import Prompt, Request
from tests import micro_rewards
from tests.golden.runner import make_batch
from tests.helpers import info_of, rollout_of, with_rewards

SCORE = "quality"
NAMED = (SCORE,)


def batch(case):
    inputs = dict(case["inputs"])
    scores = torch.tensor(inputs.pop("score"), dtype=torch.float64)
    made, leaves = make_batch(inputs)
    return with_rewards(made, scores), leaves


def _masked_pairs(batch, tau):
    right, wrong, close = opposite_pairs(batch, score=SCORE, tau=tau, info=info_of(batch, SCORE))
    return sorted(torch.stack([right[close], wrong[close]], 1).tolist())


OUTPUTS = {
    "keep": lambda run: torch.isin(torch.arange(run.assigned.size), run.kept_after),
    "masked_pairs": lambda run: _masked_pairs(run.assigned, run.config["tau"]),
}


def KIND_filter(case):
    made, _ = batch(case)
    out = {"masked_pairs": _masked_pairs(made, case["config"]["tau"])}
    for rule in ("any", "all"):
        kept = (
            registry.method("dagrpo", rule=rule, **case["config"])
            .bind(info=info_of(made, SCORE))
            .keep(made, after_advantage=True)
        )
        out[f"keep_{rule}"] = torch.isin(torch.arange(made.size), kept).double()
    return out


def KIND_guidance(case):
    inputs, rollouts = case["inputs"], []
    for group, correct, anchor in zip(inputs["group"], inputs["correct"], inputs["is_anchor"], strict=True):
        request = Request(Prompt(str(group), "", (), ""), (), 0, 1)
        fields = {"is_anchor": float(anchor)}
        rollouts.append(rollout_of(request, [1], accuracy=float(correct), fields=fields))
    found = unsolved(rollouts, **case["config"])
    return {"needs_anchor": sorted([int(group), int(hard)] for group, hard in found.items())}


def random_fields(batch, generator):
    """Scores of a judge, and some rollouts that are an expert's."""
    scores = torch.rand(batch.size, generator=generator, dtype=torch.float64)
    anchor = torch.rand(batch.size, generator=generator) < 0.2
    return with_rewards(batch, scores).with_rollouts(is_anchor=anchor.to(batch.dtype))


TRAIN = {"reward": ["exact", f"0*{micro_rewards.__file__}:proximity"]}
# The digits next to the right one are nearly as good, so that rule "any" would leave no right rollout in a group.
HYPER_TRAIN = "(score='proximity', rule='all')"
