"""Syn-GRPO: Self-Evolving Data Synthesis for MLLM Perception Reasoning. arXiv:2511.19343.

Confidence: reconstructed: every formula and weight, how a later diversity reaches its description, the order of the queue. The
paper outpaints pictures after a description; here, in text, the description is a setting that is put before the question.

Behind its answer a rollout describes a setting for the question, between <description> tags; the question stays word by word,
and so does its answer. Settings go to a server (first in, first out, `capacity` at most). Of the prompts of a step up to
floor(share B) are questions in settings of the server, the rest are those of the data.

    D      = 4 Var(a_1 .. a_G)                      of the group on a question in a setting: 1 where half are right
    Dbar  <- kappa Dbar + (1 - kappa) D             over its visits
    r_i    = a_i + w_f f_i + w_d Dbar_i             Dbar_i of the setting that rollout i described

The first `probes` settings of a group are tried at once, by `probe_size` rollouts each that are not trained on; others are
known from earlier visits, or not at all: then rollout i gets the mean of those known in its group, 0 if none is.

Defaults (ours): share 0.5, kappa 0.5, w_f 0.5, w_d 0.5, capacity 64, probes 2 of 4 rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.guidance import by_prompt, draw_groups, with_guidance
from cohort.axes.served import from_server
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.signals.components import component
from cohort.signals.settings import described, diversity, known_or_mean
from cohort.types import Batch, Request, Rollout, StepInfo
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs

DESCRIBE = """Answer it. Then describe, between <description> and </description>, a setting or a story that could stand before
this question and would make it harder, without an answer to it."""
IN_SETTING = "{text}\n\n{question}"


def _asked(request: Request, sampler: Sampler) -> Request:
    setting = request.meta.get("setting", "")
    plain = with_guidance(request, "{question}\n\n{text}", DESCRIBE, sampler, whole=True)
    return with_guidance(request, f"{IN_SETTING}\n\n{DESCRIBE}", setting, sampler) if setting else plain


@declare(provides=("tried",))
def described_settings(requests: Sequence[Request], sampler: Sampler, *, probes: int, probe_size: int) -> list[Rollout]:
    """Draw every question, in its setting where it has one, and try some of the settings that its rollouts describe.

    Source: arXiv:2511.19343.
    """
    groups = draw_groups(sampler, [_asked(request, sampler) for request in requests])
    tries: list[Request] = []
    for key, own in by_prompt(requests).items():
        rollouts = groups[key].rollouts if key in groups else ()
        some = [(k, setting) for k, each in enumerate(rollouts) if (setting := described(each.text))][:probes]
        for k, setting in some:
            again = (1 + k * probe_size + j for j in range(probe_size))
            tries += [with_guidance(own[0], IN_SETTING, setting, sampler, salt=salt, probe=k) for salt in again]
    right: dict[tuple[str, int], list[float]] = {}
    for rollout in sampler.draw(tries) if tries else ():
        right.setdefault((rollout.prompt.id, rollout.request.meta["probe"]), []).append(max(rollout.accuracy, 0.0))

    def told(key: str, k: int, rollout: Rollout) -> Rollout:
        found = right.get((key, k))
        if not found:
            return rollout
        return rollout.replace(fields={**rollout.fields, "tried": float(diversity(torch.tensor(found)))})

    return [told(key, k, each) for key, group in groups.items() for k, each in enumerate(group.rollouts)]


@needs("diversity", "reward_components")
@declare(components=("form",), provides=("diversity",))
def with_diversity(
    batch: Batch, *, form: str | None, format_weight: float, diversity_weight: float, info: StepInfo
) -> tuple[Tensor, dict[str, float]]:
    """r_i = a_i + w_f f_i + w_d Dbar_i [N], and the share of rollouts whose Dbar is known. Source: arXiv:2511.19343."""
    values = batch["diversity"].to(batch.dtype)
    rewards = batch["accuracy"].to(batch.dtype) + diversity_weight * known_or_mean(values, batch)
    if form is not None:
        rewards = rewards + format_weight * component(batch, form, info)
    return rewards, {"diversity/known": float((~values.isnan()).float().mean())}


@recipe(
    title="Syn-GRPO: Self-Evolving Data Synthesis for MLLM Perception Reasoning",
    paper="arXiv:2511.19343",
    idea="rollouts describe settings for their question; those in which answers differ are rewarded, and asked next",
    confidence="reconstructed: all formulas and weights, how diversity reaches a description, the queue",
)
def syn_grpo(
    *,
    share: Annotated[float, "[0, 1]"] = 0.5,
    capacity: Annotated[int, "[1, inf)"] = 64,
    keep: Annotated[float, "[0, 1]"] = 0.5,
    probes: Annotated[int, "[0, inf)"] = 2,
    probe_size: Annotated[int, "[2, inf)"] = 4,
    form: str | None = None,
    format_weight: Annotated[float, "[0, inf)"] = 0.5,
    diversity_weight: Annotated[float, "[0, inf)"] = 0.5,
) -> Method:
    return Method(
        curriculum=use(from_server, share=share, capacity=capacity, keep=keep),
        guidance=use(described_settings, probes=probes, probe_size=probe_size),
        shaping=(use(with_diversity, form=form, format_weight=format_weight, diversity_weight=diversity_weight),),
    )
