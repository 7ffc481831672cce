"""PolicyRollout (PoRo) and TriMPI: Multimodal Policy Internalization for Conversational Agents. arXiv:2510.09474.

Confidence: exact; inferred are the guard of the division, and that old log-probabilities are taken on the plain prompt.

An agent obeys a long document (rules, tools) that stands in every prompt, and is to obey it without. Each group has rollouts
that saw the document, from the same policy, and all are trained as answers to the prompt without it:

    o_1 .. o_G ~ pi_old(.|q),  o_{G+1} .. o_{G+A} ~ pi_old(.|q, document)       A = G
    A_i over the joint group
    rho_it = pi(o_it | q, o_<t) / pi_old(o_it | q, o_<t)       of all of them: 1 at the first update; KL likewise

So the contexts of training and use agree, and rollouts that saw the document push down those that went wrong without. It is
GRPO or DAPO for the rest (`dapo+policy-rollout`). The column `document` holds the text. A document that the model's context
cannot hold with the completion is refused.

stage="pretraining" is the first of the paper's three stages, on `--pairs` whose completions are whole texts (document,
question, answer); then `cohort sft` on answers without the document; then this.

    loss = -mean over texts of the mean log-probability of their tokens that are no `media_tokens` (0 for a text of those alone)

Defaults: as many rollouts with the document as without (paper; its G and learning rates were not recorded).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, ratio, surrogate
from cohort.axes.guidance import by_prompt, flattened, with_guidance, without_guidance
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch, Request, Rollout, grouped
from cohort.types.access import ModelAccess, Sampler
from cohort.types.declare import declare, hooks, needs

WITH_DOCUMENT = "{text}\n\n{question}"


@declare(columns=("document",))
def document_rollouts(
    requests: Sequence[Request], sampler: Sampler, *, document: str = "document", aware: int | None = None
) -> list[Rollout]:
    """Draw every group, and `aware` more rollouts (None: as many) that see the document, all as answers to the plain prompt.

    Source: arXiv:2510.09474.
    """
    seeing = []
    for members in by_prompt(requests).values():
        text = str(members[0].prompt.row.get(document) or "")
        for k in range(len(members) if aware is None else aware):
            again, request = divmod(k, len(members))
            asked = members[request]
            seeing.append(with_guidance(asked, WITH_DOCUMENT, text, sampler, whole=True, salt=1 + again, aware=True))
    drawn = sampler.draw([*requests, *seeing])
    plain = [without_guidance(r) if r.request.meta.get("aware") else r for r in drawn]
    return flattened(grouped(plain))


def _mark_media(batch: Batch, access: ModelAccess, *, media_tokens: tuple[str, ...] = ()) -> Batch:
    """the tokens that stand for images are looked up"""
    ids = [token for text in media_tokens for token in access.encode(text)]
    return batch.with_tokens(visual=torch.isin(batch["token_ids"], torch.tensor(ids, device=batch.device)))


@needs("visual")
@hooks(on_scored=_mark_media)
@declare(provides=("visual",))
def text_alone(batch: Batch, advantages: Tensor) -> Batch:
    """The loss is taken over the tokens that stand for no image."""
    return batch.replace(loss_mask=batch.loss_mask & ~batch["visual"].bool())


@declare(offline=True)
def likelihood(batch: Batch) -> Tensor:
    """A_i = 1: [N], with which -A logp is the loss of supervised learning."""
    return torch.ones_like(batch.rewards)


@recipe(
    title="Multimodal Policy Internalization for Conversational Agents",
    paper="arXiv:2510.09474",
    idea="rollouts that saw a long document teach the policy to do without it",
    confidence="exact",
)
def policy_rollout(
    *,
    document: str = "document",
    aware: Annotated[int | None, "[0, inf)"] = None,
    stage: Annotated[str, ("reinforcement", "pretraining")] = "reinforcement",
    media_tokens: tuple[str, ...] = (),
) -> Method:
    if stage == "reinforcement":
        return Method(guidance=use(document_rollouts, document=document, aware=aware))
    return Method(
        advantage=use(likelihood),
        credit=(use(text_alone, media_tokens=tuple(media_tokens)),),
        ratio=use(ratio.none),
        surrogate=use(surrogate.reinforce),
        aggregation=use(aggregation.sequence_mean),
    )
