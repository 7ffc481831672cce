"""GRPO-VPS: Enhancing GRPO with Verifiable Process Supervision for Effective Reasoning. arXiv:2604.20659.

Confidence: reconstructed. Known: beliefs in the gold answer at the ends of segments, their differences as a bonus, four
segments. Inferred: the share of candidate tokens, the exact boundaries, alpha, the joint probability, the text that closes
a prefix.

    candidates c_0 < ... < c_(m-1): the max(1, ceil(rho L)) tokens of the rollout with the highest entropy
    segment k starts at c_(floor(k m / K)), k = 1 .. K - 1, segment 0 at the first token; equal starts are one
    C_k  = pi(gold answer | prompt, the first k segments, closing text) = exp( sum of its tokens' logp )     "joint"
           exp( mean )                                                                                  "per_token"
    A_it = A_i + alpha (C_(k+1) - C_k) for the tokens t of segment k

The beliefs come from one pass of the policy over all prefixes, without sampling. The entropies are the sampling policy's.
A group without spread, all wrong ones too, still learns from its progress. The closing text ends the reasoning and opens
the answer: set it to what the prompts of the run ask for.

Defaults: K 4 (paper); alpha 0.5, rho 0.5 are the specification's.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean, token_sum, top_tokens
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

CLOSING = "\n\nThe final answer is \\boxed{"


def segments(batch: Batch, *, num_segments: int, entropy_fraction: float) -> Tensor:
    """[N, T] int64: the segment, from 0, of each token with mask 1."""
    mask = batch.mask
    candidates = top_tokens(batch["old_entropy"], mask, entropy_fraction)
    count = candidates.sum(1, keepdim=True)
    # Which candidates, by number, start a segment.
    numbers = torch.arange(1, num_segments, device=mask.device) * count // num_segments
    chosen = torch.zeros(mask.shape, dtype=torch.bool, device=mask.device).scatter(1, numbers, True)
    starts = candidates & chosen.gather(1, (candidates.cumsum(1) - 1).clamp(min=0))
    return (starts & (mask.cumsum(1) > 1)).cumsum(1)


def belief(logp: Tensor, mask: Tensor, *, confidence: str = "joint") -> Tensor:
    """exp of the sum ("joint") or the mean ("per_token") of the answer's logp [n, T]: [n]."""
    return (token_sum(logp, mask) if confidence == "joint" else token_mean(logp, mask)).exp()


def score_prefixes(
    batch: Batch,
    access: ModelAccess,
    *,
    answer: str = "answer",
    closing: str = CLOSING,
    num_segments: int = 4,
    entropy_fraction: float = 0.5,
    confidence: str = "joint",
) -> Batch:
    """A pass of the policy over up to K + 1 prefixes of every rollout, closed and followed by the gold answer.

    Returns:
        the batch with `confidences` [N, K + 1]: C_0 .. C_end, then C_end again where there are fewer segments.
    """
    segment = segments(batch, num_segments=num_segments, entropy_fraction=entropy_fraction).cpu()
    mask = batch.mask.cpu()
    closed = access.encode(closing)
    asked: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    place = torch.full((batch.size, num_segments + 1), -1)
    for i, (rollout, gold) in enumerate(zip(access.rollouts, access.column(answer), strict=True)):
        own = mask[i].nonzero()[:, 0]
        if not own.numel():
            continue
        cuts = [int(own[(segment[i, own] >= k).int().argmax()]) for k in range(int(segment[i, own[-1]]) + 1)]
        # Nothing follows a stop token.
        cuts.append(len(rollout.tokens) - rollout.finished)
        for k, cut in enumerate(cuts):
            key = ((*rollout.before(cut), *closed), access.encode(str(gold)))
            place[i, k:] = asked.setdefault(key, len(asked))
    if not asked:
        return batch.with_rollouts(confidences=torch.zeros(place.shape, device=batch.device))
    answers = [tokens for _, tokens in asked]
    logp = access.log_probs([context for context, _ in asked], answers)["logp"]
    lengths = torch.tensor([len(tokens) for tokens in answers], device=logp.device)
    found = belief(logp, torch.arange(logp.shape[1], device=logp.device) < lengths[:, None], confidence=confidence)
    return batch.with_rollouts(confidences=torch.where(place >= 0, found.cpu()[place], 0.0).to(batch.device))


@needs("old_entropy", "confidences")
@hooks(on_scored=score_prefixes)
@declare(columns=("answer",), provides=("confidences",))
def progress_bonus(
    batch: Batch, advantages: Tensor, *, alpha: float = 0.5, num_segments: int = 4, entropy_fraction: float = 0.5
) -> Tensor:
    """A_it + alpha (C_(k+1) - C_k) for the tokens of segment k: [N, T]. Source: arXiv:2604.20659."""
    progress = batch["confidences"].to(batch.dtype).diff(dim=1)
    at = segments(batch, num_segments=num_segments, entropy_fraction=entropy_fraction)
    return advantages + alpha * progress.gather(1, at)


@recipe(
    title="GRPO-VPS: Enhancing GRPO with Verifiable Process Supervision for Effective Reasoning",
    paper="arXiv:2604.20659",
    idea="a segment is paid for how much it raises the policy's belief in the gold answer",
    confidence="reconstructed: candidates, boundaries, alpha, joint probability, closing text",
)
def grpo_vps(
    *,
    alpha: Annotated[float, "[0, inf)"] = 0.5,
    num_segments: Annotated[int, "[1, inf)"] = 4,
    entropy_fraction: Annotated[float, "(0, 1]"] = 0.5,
    confidence: Annotated[str, ("joint", "per_token")] = "joint",
    answer: str = "answer",
    closing: str = CLOSING,
) -> Method:
    cut = {"num_segments": num_segments, "entropy_fraction": entropy_fraction}
    probe = {"answer": answer, "closing": closing, "confidence": confidence}
    return Method(credit=(use(progress_bonus, alpha=alpha, **cut, **probe),))
