import torch

from cohort.signals.exploitation import kept_best, unmeasured
from cohort.signals.rubrics import consensus, exploited, internalization_gap, share_met
from tests.golden.runner import make_batch, tensor
from tests.recipes import judges

NAMED = ("rubric",)
HYPER = {"gap_every": 0}


def unwatched(batch):
    return batch.with_rollouts(rubric_gap=torch.zeros(batch.size), rubric_gaps=torch.zeros(batch.size))


def batch(case):
    """Rewards as the builtin reward gives them."""
    inputs = dict(case["inputs"])
    weights, judgments = inputs.pop("rubric_weights"), inputs.pop("judgments")
    group = sorted(set(inputs["group"]))
    rewards = [share_met(weights[group.index(g)], met) for g, met in zip(inputs["group"], judgments, strict=True)]
    made, leaves = make_batch({**inputs, "rewards": rewards})
    return unwatched(made), leaves


def KIND_reward(case):
    inputs = case["inputs"]
    return {"rewards": [share_met(*pair) for pair in zip(inputs["weights"], inputs["judgments"], strict=True)]}


def KIND_diagnostic(case):
    inputs = case["inputs"]
    if "checkpoints" in inputs:
        gaps, state = [], unmeasured()
        for step, checkpoint in enumerate(inputs["checkpoints"]):
            found = internalization_gap(*(tensor(checkpoint[k]) for k in ("logp_prompt", "logp_conditioned", "mask")))
            gaps.append(float(found[~found.isnan()].mean()))
            state = kept_best(state, gaps[-1], step)
        return {"gap": gaps, "best_checkpoint": state["gap_best_step"]}
    weights, before, now = (inputs[name] for name in ("weights", "train_previous", "train_now"))
    panels = list(zip(*inputs["panel_now"], strict=True))
    parts = [exploited(*each) for each in zip(weights, before, now, panels, strict=True)]
    rejected, whole = map(sum, zip(*parts, strict=True))
    agreed = [consensus(panel) for panel in panels]
    return {
        "exploitation_rate": rejected / whole if whole else None,
        "consensus": agreed,
        "proxy_reward": [share_met(*each) for each in zip(weights, now, strict=True)],
        "reference_reward": [share_met(*each) for each in zip(weights, agreed, strict=True)],
    }


def random_fields(batch, generator):
    return batch.with_rollouts(rubric_gap=torch.zeros(batch.size), rubric_gaps=torch.zeros(batch.size))


TRAIN = {"reward": ["exact", f"0*{judges.__file__}:rubric"]}
HYPER_TRAIN = "(gap_every=2,gap_samples=2)"
