import torch

from cohort.policies.head import statistics_of
from cohort.types.soft import Mixer, SoftStep, density, mixture, perturb
from cohort.types.support import Flat, Rule
from tests.golden.runner import make_batch

SOFT = ("soft", "topk_ids", "topk_perturbed")


def batch(case):
    """The log-probabilities are those of the policy's own scoring, over its logits; so is the gradient."""
    inputs = dict(case["inputs"])
    soft, ids, scores = (torch.tensor(inputs.pop(name)) for name in SOFT)
    made, leaves = make_batch({"tokens": inputs.pop("labels"), **inputs})
    config = case["config"]
    mixer = Mixer(
        noise_clamp=tuple(config["noise_clamp"]), log_prob_cut=config["log_prob_cut"], prob_eps=config["prob_eps"]
    )
    steps = [
        (SoftStep(k.int().numpy(), g.double().numpy()), mixer) if is_soft else None
        for is_soft, k, g in zip(soft.flatten().tolist(), ids.flatten(0, 1), scores.flatten(0, 1), strict=True)
    ]
    none = torch.zeros(len(steps), dtype=torch.int64)
    labels = made._tokens["token_ids"].flatten()
    logp, _ = statistics_of(
        leaves["logits"].flatten(0, 1), labels, 1.0, False, Flat((Rule(),), none, none, None, steps)
    )
    return made.with_tokens(logp=logp.view(soft.shape)), leaves


OUTPUTS = {"logp": lambda run: run.trained.logp}
# They say how steps are drawn and scored, which is the policy's; see `batch`.
IGNORE = ("noise_clamp", "log_prob_cut", "prob_eps")


def KIND_rollout(case):
    config = case["config"]
    probs, uniforms = (torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("probs", "uniforms"))
    clamp, eps = tuple(config["noise_clamp"]), config["prob_eps"]
    noise, perturbed = perturb(probs, uniforms, noise_factor=config["noise_factor"], noise_clamp=clamp, prob_eps=eps)
    logp = density((probs + eps).log(), perturbed, noise_clamp=clamp, log_prob_cut=config["log_prob_cut"])
    weights = mixture(perturbed, gumbel_temperature=config["gumbel_temperature"])
    return {"noise": noise, "perturbed": perturbed, "weights": weights, "logp": logp}


TRAIN = {"thought": True}
HYPER_TRAIN = "(candidates=3, end_of_thinking='~', gumbel_temperature=0.1)"
