"""CAPO (Curvature-Aware): Stabilizing Policy Gradients for Sample-Efficient RL in LLM Reasoning. arXiv:2510.00819.

Code luckeciano/stable-pg-llm. Confidence: exact (the code's candidates are what the sampler kept). A second-order model
of the last layer W predicts what the update of each token would do by itself; dangerous tokens are left out of the loss.
With h the hidden state, pi = softmax(W h) over the candidates and v = onehot(a) - pi:

    G   = A v h^T,   E = G                                                                   optimizer="sgd"
    E   = [(b1 m + (1 - b1) G) / (1 - b1^(t+1))] / (sqrt((b2 s + (1 - b2) G^2) / (1 - b2^(t+1))) + eps)     "adam"
    u   = E h,   d = v.u,   q = u^T (diag(pi) - pi pi^T) u
    m_H = lr A d + (lr^2 / 2) A (d^2 - q)                     how far the objective moves; <G, E> = A d
    m_F = (lr^2 / 2) d^2                                      how far the policy moves
    accepted: m_F < tau_fisher and |m_H| < tau_hessian        or 0 <= m_H < tau_hessian if not symmetric
A rollout's mean is over its accepted tokens. After the step m and s follow the mean of G over the accepted tokens, each
row over those whose candidates hold it; until a first token was accepted, E is G.

Judging takes one more forward pass, and memory for a hidden state and `top_k` candidates a token (None: the whole
vocabulary). Defaults: thresholds of CAPO on GRPO (with Dr. GRPO 1e-3 and 5e-4, with REINFORCE 1e-5 and 0.1), for learning
rates about 1e-5; `gate/rejected` in the metrics says whether they fit.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.devices import to_device, to_host
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.moments import Adam, adam_direction, init_moments, row_means, updated_moments
from cohort.types import Batch, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import State, declare, hooks, needs

# Numbers held at once while candidates are picked and tokens judged: 64 million are 256 MB in float32.
MOST = 64 * 2**20


def last_layer(batch: Batch, access: ModelAccess, *, top_k: int | None = 64) -> Batch:
    """on_scored hook: a forward pass for hidden states [N, T, d], ids and probabilities [N, T, K] of the likeliest tokens."""
    contexts, completions = zip(*((r.context, r.tokens) for r in access.rollouts), strict=True)
    # The run's temperature divides hidden states as it does logits.
    hidden = access.log_probs(contexts, completions, want=frozenset({"hidden"}))["hidden"] / access.temperature
    head, mask = access.head(), to_device(batch.mask, hidden.device)
    count = min(top_k or len(head), len(head))
    best = [(part @ head.T).topk(count) for part in hidden[mask].split(max(1, MOST // len(head)))]
    ids, probs = head.new_zeros(*mask.shape, count, dtype=torch.int64), head.new_zeros(*mask.shape, count)
    ids[mask] = torch.cat([each.indices for each in best])
    probs[mask] = torch.cat([each.values.softmax(-1) for each in best])
    return batch.with_tokens(gate_hidden=hidden, gate_ids=ids, gate_probs=probs)


def tokens(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """v, pi and ids [M, K], h [M, d] and A [M, 1] of the tokens that the loss is taken on."""
    at = batch.loss_mask.flatten().nonzero()[:, 0]
    probs, ids, h = (batch.picked(name, at) for name in ("gate_probs", "gate_ids", "gate_hidden"))
    drawn, advantages = (to_device(batch.picked(name, at), h.device)[:, None] for name in ("token_ids", "advantages"))
    return (ids == drawn).to(probs.dtype) - probs, probs, ids, h, advantages.to(probs.dtype)


def shifts(batch: Batch, state: State, *, adam: Adam | None, lr: float) -> tuple[Tensor, Tensor]:
    """(m_H, m_F) [N, T] of the update that each token would make by itself; 0 where the loss is not taken."""
    v, probs, ids, h, advantages = tokens(batch)
    u = advantages * v * (h**2).sum(-1, keepdim=True)
    if adam is not None and len(state["ids"]) and len(v):
        size = max(1, MOST // (v.shape[1] * h.shape[1]))
        parts = zip((advantages * v).split(size), h.split(size), ids.split(size), strict=True)
        each = [adam_direction(g[..., None] * s[:, None], rows, state, adam) @ s[..., None] for g, s, rows in parts]
        u = torch.cat(each)[..., 0]
    most = torch.finfo(h.dtype).max
    d, q = (v * u).sum(-1), (probs * u**2).sum(-1) - (probs * u).sum(-1) ** 2
    objective = lr * advantages[:, 0] * (d + lr / 2 * (d**2 - q))
    objective, policy = to_host(objective.nan_to_num(most, most, -most), (lr**2 / 2 * d**2).nan_to_num(most, most))
    none = objective.new_zeros(batch.mask.shape)
    return none.masked_scatter(batch.loss_mask, objective), none.masked_scatter(batch.loss_mask, policy)


def judged(
    batch: Batch,
    state: State,
    *,
    adam: Adam | None,
    tau_fisher: float,
    tau_hessian: float,
    symmetric: bool,
    info: StepInfo,
) -> tuple[Batch, dict[str, float]]:
    """on_advantages hook: the batch with its `loss_mask` narrowed to accepted tokens, and the share of those rejected."""
    if info.lr is None:
        raise KeyError("the size of an update is not known without the learning rate of the step (StepInfo.lr)")
    objective, policy = shifts(batch, state, adam=adam, lr=info.lr)
    within = (objective < tau_hessian) & (objective > -tau_hessian if symmetric else objective >= 0)
    accepted = batch.loss_mask & within & (policy < tau_fisher)
    rejected = 1 - int(accepted.sum()) / max(1, int(batch.loss_mask.sum()))
    return batch.replace(loss_mask=accepted), {"gate/rejected": rejected}


def after_step(batch: Batch, state: State, *, adam: Adam | None) -> State:
    """on_step_end hook: t + 1, and the moments moved by each row's mean gradient over the accepted tokens that hold it."""
    if adam is None or "gate_ids" not in batch:
        return state
    v, _, ids, h, advantages = tokens(batch)
    if not len(v):
        return {**state, "t": state["t"] + 1}
    return updated_moments(state, *row_means(advantages * v, ids, h), adam)


@needs("token_ids", "gate_hidden", "gate_ids", "gate_probs")
@hooks(init=init_moments, on_scored=last_layer, on_advantages=judged, on_step_end=after_step)
@declare(provides=("gate_hidden", "gate_ids", "gate_probs"))
def curvature_gate(batch: Batch, advantages: Tensor) -> Tensor:
    """A as it is; after all credit, tokens whose update would move too far leave the loss. Source: arXiv:2510.00819."""
    return advantages


@recipe(
    title="CAPO: Stabilizing Policy Gradients for Sample-Efficient Reinforcement Learning in LLM Reasoning",
    paper="arXiv:2510.00819",
    idea="tokens whose own update would move the last layer too far are left out of the loss",
    confidence="exact",
)
def capo_curvature(
    *,
    tau_fisher: Annotated[float, "[0, inf]"] = 1e-4,
    tau_hessian: Annotated[float, "[0, inf]"] = 1e-2,
    symmetric: Annotated[bool, (True, False)] = True,
    optimizer: Annotated[str, ("adam", "sgd")] = "adam",
    beta1: Annotated[float, "[0, 1)"] = 0.9,
    beta2: Annotated[float, "[0, 1)"] = 0.999,
    adam_eps: Annotated[float, "(0, inf)"] = 1e-8,
    top_k: Annotated[int | None, "[1, inf)"] = 64,
) -> Method:
    adam = (beta1, beta2, adam_eps) if optimizer == "adam" else None
    gate = {"tau_fisher": tau_fisher, "tau_hessian": tau_hessian, "symmetric": symmetric}
    return Method(credit=(use(curvature_gate, adam=adam, top_k=top_k, **gate),))
