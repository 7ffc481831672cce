"""CRPO: Clinical-R1, Faithful and Comprehensive Reasoning with Clinical Objective Relative Policy Optimization.

arXiv:2512.00601. Code BoyangGu1/Clinical-R1-3B. Confidence: exact as to the official reward and launch script.

GRPO on multiple-choice questions, with rewards that no annotation is needed for beside the letter:

    R = 10 choice + sections + 0.5 english                            at most 12
    choice    1 right letter in the only box, 0 wrong or no box, -0.5 no letter, -1 unreadable, -n for n boxes
    sections  1 if the report is <think>...</think><answer>...</answer>, 0.5 more if it leads up to the box
    english   share of plain English characters

A right answer beats every wrong one, and two boxes cost more than a wrong one, so that neither shape nor hedging pays for
correctness. The paper's tags are `sections:dx,conclusion`; accuracy is `choice`.

Defaults: the paper's: kl_beta 0.001 (k3), mean over tokens, unbiased standard deviation. Its run: groups of 5 after a cold
start on distilled reasoning.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import advantage, aggregation, regularizer
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Clinical-R1: Empowering Large Language Models for Faithful and Comprehensive Reasoning with CRPO",
    paper="arXiv:2512.00601",
    idea="the boxed letter counts ten times, sections and language order answers that are equally right",
    confidence="exact",
    rewards=("10*choice", "sections", "0.5*english"),
)
def crpo(
    *,
    kl_beta: Annotated[float, "[0, inf)"] = 0.001,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 1,
) -> Method:
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps, ddof=std_ddof),
        regularizer=(use(regularizer.kl, beta=kl_beta),) if kl_beta else (),
        aggregation=use(aggregation.token_mean),
    )
