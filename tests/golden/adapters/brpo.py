import torch

from cohort.recipes.brpo import MODES, PRIORS, last_summary_only, prior_of, summary_advantages, thinking_advantages
from cohort.types import Groups
from tests.golden.runner import make_batch, tensor

RENAME = {"length_normaliser": "max_tokens"}
# The advantage has no division by a spread.
IGNORE = ("scale_by_std",)


def _one_prompt(count):
    return Groups(torch.zeros(count, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))


def batch(case):
    """Thinking tokens come first; then an inserted token before each summary's own."""
    inputs = dict(case["inputs"])
    inputs.pop("budgets")
    kind, segment = torch.tensor(inputs.pop("token_kind")), torch.tensor(inputs.pop("thinking_segment"))
    scores, split = tensor(inputs.pop("summary_scores")), tensor(inputs.pop("summary_split"))
    made, leaves = make_batch(inputs)
    summary = kind == 2
    index = torch.where(summary, summary.cumsum(1) - 1, -1)
    thinking = torch.full(kind.shape, -1)
    thinking[:, : segment.shape[1]] = segment
    made = made.with_tokens(summary_index=index, thinking_segment=thinking)
    return made.with_rollouts(summary_scores=scores, summary_split=split), leaves


def hyper(case):
    """Budgets stand among the inputs."""
    return {"budgets": tuple(case["inputs"]["budgets"])} if "budgets" in case["inputs"] else {}


def _budget_scores(run):
    return run.batch["summary_scores"].unflatten(1, (len(run.inputs["budgets"]), -1)).mean(2)


def _thinking(run):
    prior = prior_of(run.config["prior"], torch.tensor(run.inputs["budgets"], dtype=torch.float64))
    return thinking_advantages(_budget_scores(run), prior, run.batch.groups, decay=run.config["decay"])


OUTPUTS = {
    "budget_scores": _budget_scores,
    "thinking_advantages": _thinking,
    "summary_advantages": lambda run: summary_advantages(
        run.batch["summary_scores"], run.batch["summary_split"], run.batch.groups, single=False
    ),
}


def KIND_advantage(case):
    inputs = case["inputs"]
    if "summary_scores" in inputs:
        scores, split = tensor(inputs["summary_scores"]), tensor(inputs["summary_split"])
        groups = _one_prompt(len(scores))
        return {
            "brpo": summary_advantages(scores, split, groups, single=case["config"]["summaries_per_budget"] == 1),
            "grpo": last_summary_only(scores, groups),
        }
    scores, budgets = tensor(inputs["scores"]), torch.tensor(inputs["budgets"], dtype=torch.float64)
    decay, groups = case["config"]["decay"], _one_prompt(len(scores))
    priors = {name: prior_of(name, budgets) for name in PRIORS}
    return {
        "probs": priors,
        "advantages": {
            name: {mode: thinking_advantages(scores, prior, groups, decay=decay, mode=mode) for mode in MODES}
            for name, prior in priors.items()
        },
        "advantages_single_rollout_linear": thinking_advantages(
            scores[:1], priors["linear"], _one_prompt(1), decay=decay
        ),
    }


def random_fields(batch, generator):
    """Four budgets with two summaries each; the last tokens of a rollout belong to them."""
    n, width = batch.mask.shape
    scores = torch.randint(0, 2, (n, 8), generator=generator).to(batch.dtype)
    split = torch.arange(8).expand(n, 8) // 2
    place = torch.arange(width).expand(n, width)
    segment = torch.where(place < width // 2, place.clamp(max=3), -1)
    index = torch.where(place >= width // 2, (place - width // 2).clamp(max=7), -1)
    return batch.with_rollouts(summary_scores=scores, summary_split=split).with_tokens(
        thinking_segment=segment, summary_index=index
    )


TRAIN = {"thought": True, "group_size": 4, "steps": 20}
HYPER_TRAIN = "(budgets=(1, 2, 3), summaries=2, summary_tokens=3, closing='~', end_of_thinking='<')"
