"""A predictor of success that reads what is known of other prompts: it learns which features matter, and in a new context needs
no gradient. Source: arXiv:2602.03584, whose backbone and in-context classifier are much larger.

    z    = W (x - mean) / std                                  features x of a prompt, on the scale of those known
    s_k  = exp(tau) cos(z, z_k)                                 likeness to the prompt k whose success rate y_k is known
    logit_1 = log sum_k y_k e^{s_k},   logit_0 = log sum_k (1 - y_k) e^{s_k}
    loss = alpha mean_pairs -log sigmoid(s+ - s-) + (1 - alpha) cross-entropy(soft labels),   s = logit_1 - logit_0
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from cohort.types.declare import State

# Of W; success rates are taken to lie this far inside [0, 1].
WIDTH, MARGIN = 64, 1e-3


def untrained(size: int) -> State:
    """The predictor for features of `size` numbers, with the moments of its optimizer."""
    weight = torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(0)) / math.sqrt(size)
    held = {"weight": weight, "tau": torch.tensor(math.log(5.0))}
    moments = {f"{kind}/{name}": torch.zeros_like(value) for kind in ("m", "v") for name, value in held.items()}
    return {**held, **moments, "updates": 0}


def predict(model: State, queries: Tensor, known: Tensor, success: Tensor) -> Tensor:
    """Logits [n, 2] of failure and success of prompts with features [n, d], from those [h, d] of known success rates [h]."""
    mean, std = known.mean(0), known.std(0, correction=0).clamp(min=1e-6)
    own, others = (normalize((x - mean) / std @ model["weight"], dim=-1) for x in (queries, known))
    likeness = model["tau"].exp() * own @ others.T
    rates = success.clamp(MARGIN, 1 - MARGIN)
    return torch.stack([(likeness + (1 - rates).log()).logsumexp(1), (likeness + rates.log()).logsumexp(1)], 1)


def paired(labels: Tensor, rng: torch.Generator) -> Tensor:
    """Places [2 M] of rates [n], a success (at or above 1/2) and a failure in turn: both shuffled, the shorter list in a cycle.

    All places in their order where there is one kind alone.
    """
    right, wrong = (each.nonzero()[:, 0] for each in (labels >= 0.5, labels < 0.5))
    if not right.numel() or not wrong.numel():
        return torch.arange(labels.numel())
    count = max(right.numel(), wrong.numel())
    mixed = [each[torch.randperm(each.numel(), generator=rng)] for each in (right, wrong)]
    return torch.stack([each[torch.arange(count) % each.numel()] for each in mixed], 1).flatten()


def losses(logits: Tensor, labels: Tensor, *, alpha: float, ranked: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of logits [2 M, 2] of a success and a failure in turn, and its parts, of pairs and of soft labels [2 M].

    Args:
        ranked: False where they are no pairs.
    """
    score = logits[:, 1] - logits[:, 0]
    pairs = -logsigmoid(score[::2] - score[1::2]).mean() if ranked else score.sum() * 0
    soft = cross_entropy(logits, torch.stack([1 - labels, labels], 1))
    return alpha * pairs + (1 - alpha) * soft, pairs, soft


def learned(
    model: State,
    queries: Tensor,
    labels: Tensor,
    known: Tensor,
    success: Tensor,
    *,
    alpha: float,
    lr: float,
    updates: int,
    rng: torch.Generator,
) -> State:
    """The predictor after some updates (Adam) on queries whose rates are known by now."""
    names = ("weight", "tau")
    for _ in range(updates):
        leaves = {name: model[name].detach().clone().requires_grad_() for name in names}
        places = paired(labels, rng)
        ranked = bool((labels >= 0.5).any()) and bool((labels < 0.5).any())
        with torch.enable_grad():
            logits = predict(leaves, queries[places], known, success)
            loss = losses(logits, labels[places], alpha=alpha, ranked=ranked)[0]
        grads = torch.autograd.grad(loss, list(leaves.values()))
        count = model["updates"] + 1
        new: State = {"updates": count}
        for name, grad in zip(names, grads, strict=True):
            m, v = 0.9 * model[f"m/{name}"] + 0.1 * grad, 0.999 * model[f"v/{name}"] + 0.001 * grad**2
            step = (m / (1 - 0.9**count)) / ((v / (1 - 0.999**count)).sqrt() + 1e-8)
            new |= {name: model[name] - lr * step, f"m/{name}": m, f"v/{name}": v}
        model = new
    return model
