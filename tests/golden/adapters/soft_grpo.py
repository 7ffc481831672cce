import torch

from cohort.recipes.soft_grpo import density, mixture, perturb, soft_logp
from tests.golden.runner import make_batch

NAMES = ("noise_clamp", "log_prob_cut", "prob_eps")


def batch(case):
    """The log-probabilities of discrete steps follow from the logits, and so does the gradient."""
    inputs = dict(case["inputs"])
    made, leaves = make_batch({"tokens": inputs.pop("labels"), **inputs})
    labels = made._tokens["token_ids"]
    return made.with_tokens(logp=leaves["logits"].log_softmax(-1).gather(-1, labels[..., None])[..., 0]), leaves


def _logp(run):
    how = {name: run.config[name] for name in NAMES}
    return torch.where(run.trained.mask, soft_logp(run.trained, **how), 0.0)


OUTPUTS = {"logp": _logp}


def KIND_rollout(case):
    config = case["config"]
    probs, uniforms = (torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("probs", "uniforms"))
    clamp, eps = tuple(config["noise_clamp"]), config["prob_eps"]
    noise, perturbed = perturb(probs, uniforms, noise_factor=config["noise_factor"], noise_clamp=clamp, prob_eps=eps)
    logp = density((probs + eps).log(), perturbed, noise_clamp=clamp, log_prob_cut=config["log_prob_cut"])
    weights = mixture(perturbed, gumbel_temperature=config["gumbel_temperature"])
    return {"noise": noise, "perturbed": perturbed, "weights": weights, "logp": logp}


def random_fields(batch, generator):
    """Soft steps with two of three tokens as candidates, as an engine would report them."""
    shape = batch.mask.shape

    def normal(*size):
        return torch.randn(*shape, *size, generator=generator, dtype=batch.dtype)

    ids = torch.rand(*shape, 3, generator=generator).argsort(-1)[..., :2]
    logits = normal(3)
    log_probs = logits.gather(-1, ids).log_softmax(-1)
    soft = torch.rand(shape, generator=generator) < 0.6
    perturbed = log_probs + normal(2)
    return batch.with_tokens(logits=logits, soft=soft, topk_ids=ids, topk_perturbed=perturbed)
