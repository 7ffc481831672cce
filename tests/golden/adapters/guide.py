import torch

from cohort import registry
from cohort.recipes.guide import gammas
from cohort.rollouts.batching import make_batch as batch_of
from tests.golden.guided import FakeSampler, guided, requests_of
from tests.golden.runner import make_batch

FIELDS = {"guided": ("guided", "rollout"), "old_logp": ("old_logp", "token")}
BOUNDS = ("accuracy_low", "accuracy_high", "hint_accuracy_low", "hint_accuracy_high")


def batch(case):
    """The case has one denominator: that of guided rollouts was taken behind the hint."""
    made, leaves = make_batch(case["inputs"])
    return made.with_tokens(guided_logp=made.old_logp), leaves


def routes(method, accuracy, hint_accuracy, size=8):
    """What becomes of prompts whose groups have these accuracies, without and with a hint."""
    # A prompt whose accuracy with a hint is not known has none.
    hints = ["look" if known is not None else "" for known in hint_accuracy]
    shares = (accuracy, hint_accuracy)

    def worth(request):
        share = shares[request.context.tokens != request.prompt.tokens][int(request.prompt.id)]
        return float(request.meta["place"] < round(share * size))

    groups = guided(method, requests_of(len(accuracy), size, hint=hints), FakeSampler(worth))
    rollouts = [rollout for p in range(len(accuracy)) for rollout in groups[p]]
    made = batch_of(rollouts, {}, extra=sorted(method.drawn))
    kept = {made.group[row].item() for row in method.bind().keep(made).tolist()}
    hinted = [groups[p][0].fields.get("guided") == 1 for p in range(len(accuracy))]
    return ["drop" if p not in kept else "guided" if hinted[p] else "plain" for p in range(len(accuracy))]


def KIND_filter(case):
    method = registry.method("guide", **case["config"])
    return {"route": routes(method, case["inputs"]["accuracy"], case["inputs"]["hint_accuracy"])}


def _gamma(run):
    ratio = run.bound.loss(run.trained).ratio
    how = {
        "gamma_min": 1e-4,
        **{key: run.config[key] for key in ("shaping", "gamma_value", "gamma_min") if key in run.config},
    }
    return run.scatter(gammas(run.trained, ratio, **how))


OUTPUTS = {"gamma": _gamma}


def random_fields(batch, generator):
    """Every other group was drawn with a hint."""
    hinted = (batch.groups.index % 2).to(batch.dtype)
    noise = 0.3 * torch.randn(batch.mask.shape, generator=generator, dtype=batch.dtype)
    return batch.with_rollouts(guided=hinted).with_tokens(guided_logp=batch.old_logp + noise)


# Solved prompts are replaced by others, which take as long again.
HYPER_TRAIN = "(max_rounds=2)"
TRAIN = {"group_size": 8}
