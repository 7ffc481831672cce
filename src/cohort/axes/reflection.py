"""Reflections: the policy goes on behind a wrong rollout of its own, shown the answer, to a corrected one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cohort.axes.guidance import with_guidance, without_guidance
from cohort.types import Batch, Request, Rollout, Segment
from cohort.types.access import ModelAccess, Sampler
from cohort.types.declare import declare, needs

PHRASE = "\nWait, that is not right. Let me think again.\n"
ANSWERED = "{question}\n\nThe correct answer is {text}."
# Note of a curriculum on the requests of a prompt: token ids of the rollout that a reflection goes on from.
WRONG = "wrong"


def reflecting(request: Request, sampler: Sampler, *, answer: str, phrase: str) -> Request | None:
    """The request that goes on behind the noted rollout and the phrase, with the answer in its prompt; None where the row has
    no answer, or there is no room."""
    shown = request.prompt.row.get(answer)
    if shown is None:
        return None
    wrong = [token for token in request.meta[WRONG] if token not in sampler.stop_ids]
    history = (*wrong, *sampler.encode(phrase))
    asked = with_guidance(request, ANSWERED, str(shown), sampler, salt=1)
    room = sampler.context_length
    if room is not None and len(asked.context) + len(history) >= room:
        return None
    return replace(asked, history=(Segment(history, "method"),))


@declare(sparse_columns=("answer",), provides=("reflection",))
def reflected(
    requests: Sequence[Request], sampler: Sampler, *, answer: str = "answer", phrase: str = PHRASE
) -> list[Rollout]:
    """The requests as they are, but those with a noted wrong rollout go on behind it, shown the answer: all of that counts as
    an answer to the plain prompt. Source: arXiv:2505.19000."""
    asked: list[Request] = []
    for request in requests:
        made = reflecting(request, sampler, answer=answer, phrase=phrase) if WRONG in request.meta else request
        asked += [] if made is None else [made]
    out = []
    for rollout in sampler.draw(asked) if asked else []:
        if WRONG in rollout.request.meta:
            whole = rollout.replace(segments=(Segment(tuple(rollout.tokens)),), turns=())
            rollout = without_guidance(whole).replace(fields={**rollout.fields, "reflection": 1.0})
        else:
            rollout = rollout.replace(fields={**rollout.fields, "reflection": 0.0})
        out.append(rollout)
    return out


def add_reflected_logp(batch: Batch, access: ModelAccess) -> Batch:
    """The batch with `reflected_logp` [N, T]: of reflections by the policy as it is, behind the plain prompt; 0 elsewhere."""
    logp = torch.zeros(batch.mask.shape, dtype=batch.dtype)
    rows = (batch["reflection"] > 0).nonzero()[:, 0].tolist()
    if rows:
        own = [access.rollouts[row] for row in rows]
        found = access.log_probs([each.context for each in own], [each.tokens for each in own])["logp"]
        logp[rows, : found.shape[1]] = found.to(logp)
    return batch.with_tokens(reflected_logp=logp)


@needs("reflection")
def not_reflected(batch: Batch) -> Tensor:
    """Reflections are trained on as pairs only: [N] bool."""
    return ~(batch["reflection"] > 0)
