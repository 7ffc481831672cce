"""Intervened Preference Optimization: Towards Safe Reasoning in Large Reasoning Models via Corrective Intervention.

arXiv:2509.24393. Confidence: reconstructed: beta, normalisation and span of the likelihood term, what the window counts, ties.

Of an unsafe rollout z the first sentence with a compliance cue is replaced: a safety trigger tau is put there, and the policy
goes on; if it is still unsafe, again, up to max_rounds times. A safe continuation z~ is preferred to z. The two share what
stands before token h, and only what comes behind it counts:

    d    = sum over t >= h of (logp - ref_logp)
    loss = mean over pairs of -log sigmoid(beta (d_z~ - d_z)) + sft_weight (the mean over t >= h of -logp of z~)

`safe` names a reward that is above 0.5 where a rollout is safe, reasoning and answer; without it the verifier says so.
`detector` names a function of yours that finds the cue, detector(prompts, sentences, **columns) -> for each rollout the number
of the first sentence with one, or None; without it the pattern `cue` does. tau is one of `triggers`; with mine > 0 they yield
to sentences of that many safe rollouts a step, from which on `samples` continuations stay safe (a share of mu, at `window`
sentences). Rows with something in the column `benign` are harmless: from the share benign_from of the run on, a safe answer
there is preferred to another, with h = 0. A step without a pair trains nothing.

Defaults: sft_weight 0.2, mu 0.9, eta 0.1, window 15, 32 samples, six triggers (paper; our texts); beta 0.1 (ours).
"""

from __future__ import annotations

import re
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.intervention import CUE, TRIGGERS, intervened
from cohort.axes.objective import logistic, mean_of_pairs, preferred_pairs
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean, token_sum
from cohort.types import Batch
from cohort.types.declare import declare, needs


class Parts(dict[str, Tensor]):
    """margin [P] = beta (d_chosen - d_rejected); preference_loss and sft_loss, scalars."""


def parts(batch: Batch, *, beta: float) -> Parts:
    """The terms of the loss over the batch's pairs: rows with the same `pair` above 0, of which one has the higher reward."""
    batch = batch.select((batch["pair"] > 0).nonzero()[:, 0])
    place = torch.arange(batch.mask.shape[1], device=batch.device)
    after = batch.mask & (place >= batch["divergence"][:, None])
    gain = beta * token_sum(batch.logp - batch.ref_logp, after)
    better, worse = preferred_pairs(batch.replace(group=batch["pair"].long()))
    margin = gain[better] - gain[worse]
    likely = token_mean(-batch.logp, after)[better]
    return Parts(margin=margin, preference_loss=mean_of_pairs(logistic(margin)), sft_loss=mean_of_pairs(likely))


@needs("ref_logp", "divergence", "pair")
@declare(couples=True, auxiliary=True)
def diverging_pairs(batch: Batch, *, beta: float = 0.1, sft_weight: float = 0.2) -> Tensor:
    """-log sigmoid of the margin behind the divergence, and the likelihood of what is preferred there: scalar.

    Source: arXiv:2509.24393.
    """
    found = parts(batch, beta=beta)
    return found["preference_loss"] + sft_weight * found["sft_loss"] + 0 * batch.logp.sum()


@recipe(
    title="Towards Safe Reasoning in Large Reasoning Models via Corrective Intervention",
    paper="arXiv:2509.24393",
    idea="where reasoning turns unsafe a sentence turns it back, and what follows is preferred to what was said",
    confidence="reconstructed: beta, normalisation and span of the likelihood term, what the window counts, ties",
)
def intervened_po(
    *,
    safe: str | None = None,
    detector: str | None = None,
    cue: str = CUE,
    triggers: tuple[str, ...] = TRIGGERS,
    max_rounds: Annotated[int, "[1, inf)"] = 2,
    traces: Annotated[int, "[1, inf)"] = 1,
    benign: str | None = None,
    benign_from: Annotated[float, "[0, 1]"] = 0.5,
    beta: Annotated[float, "(0, inf)"] = 0.1,
    sft_weight: Annotated[float, "[0, inf)"] = 0.2,
    mine: Annotated[int, "[0, inf)"] = 0,
    mu: Annotated[float, "[0, 1]"] = 0.9,
    eta: Annotated[float, "[0, 1]"] = 0.1,
    window: Annotated[int, "[1, inf)"] = 15,
    samples: Annotated[int, "[1, inf)"] = 32,
) -> Method:
    if not triggers or not all(triggers):
        raise MethodError("'intervened-po' needs triggers: texts that stand in place of what turned unsafe")
    try:
        re.compile(cue)
    except re.error as error:
        raise MethodError(f"'intervened-po': cue={cue!r} is no regular expression: {error}") from error
    found = {
        "safe": safe,
        "detector": detector,
        "cue": cue,
        "triggers": triggers,
        "max_rounds": max_rounds,
        "traces": traces,
    }
    mining = {"mine": mine, "mu": mu, "eta": eta, "window": window, "samples": samples}
    return Method(
        guidance=use(intervened, **found, benign=benign, benign_from=benign_from, **mining),
        objective=use(diverging_pairs, beta=beta, sft_weight=sft_weight),
    )
