import sys

import torch

from cohort.recipes.poise import entropy_features
from cohort.reductions.groups import leave_one_out_mean
from cohort.signals.probing import fit, pooled, predict
from tests.golden.runner import Run, make_batch, tensor

# Never divided by a standard deviation.
IGNORE = ("normalize_std",)
# A access early in a short run, of the only layer there is.
HYPER_TRAIN = "(bootstrap_steps=3, alpha=1.0)"

OUTPUTS = {
    "baselines": lambda run: leave_one_out_mean(run.batch["value_predictions"], run.batch.groups),
    "probe_targets": lambda run: leave_one_out_mean(run.batch.rewards, run.batch.groups),
}


def batch(case):
    """With features of a single number, which nothing here depends on."""
    made, leaves = make_batch(case["inputs"])
    nothing = torch.zeros(made.size, 1)
    return made.with_rollouts(prompt_feature=nothing, response_feature=nothing, entropy_feature=nothing), leaves


def KIND_metric(case):
    inputs, last = case["inputs"], case["config"]["pool_last"]
    entropy = tensor(inputs["entropy"])
    place = torch.arange(entropy.shape[1])

    def pool(name):
        states, lengths = tensor(inputs[f"{name}_hidden"]), inputs[f"{name}_length"]
        return torch.stack([pooled(row[:length], last) for row, length in zip(states, lengths, strict=True)])

    def span(name):
        bounds = torch.tensor(inputs[name])
        return (place >= bounds[:, :1]) & (place < bounds[:, 1:])

    whole = place < torch.tensor(inputs["response_length"])[:, None]
    return {
        "prompt_feature": pool("prompt"),
        "response_feature": pool("response"),
        "entropy_feature": entropy_features(entropy, whole, span("reasoning_span"), span("answer_span")),
    }


def KIND_advantage(case):
    inputs, config = case["inputs"], case["config"]
    if "value_predictions" in inputs:
        run = Run("poise", case, sys.modules[__name__])
        return {key: run.output(key) for key in case["expected"]}
    x = {name: tensor(inputs[name]) for name in inputs}
    dims = (config["prompt_pca_dim"], config["response_pca_dim"])
    access = fit((x["prompt"], x["response"]), x["scalars"], x["targets"], dims=dims, alpha=config["alpha"])
    raw = predict(access, (x["new_prompt"], x["new_response"]), x["new_scalars"])
    return {"raw_predictions": raw, "predictions": raw.clamp(*config["clip"])}


def random_fields(made, generator):
    """Predictions, and features of a few numbers."""

    def numbers(width):
        return torch.randn(made.size, width, generator=generator, dtype=made.dtype)

    return made.with_rollouts(
        value_predictions=torch.rand(made.size, generator=generator, dtype=made.dtype),
        prompt_feature=numbers(4),
        response_feature=numbers(4),
        entropy_feature=numbers(3),
    )
