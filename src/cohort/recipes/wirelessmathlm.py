"""WirelessMathLM: Teaching Mathematical Reasoning for LLMs in Wireless Communications with Reinforcement Learning.

arXiv:2509.23219. Confidence: reconstructed. Known: GRPO from base models, a binary reward, the three question types, the
order of the checks, kl_beta. Inferred: the normalisation, and how format and answer are combined.

Final formulas can be checked where solutions cannot, so that no warm start is needed. The answer is what the last closed
box holds, and

    v = 1 if the letter is right                                                    questions of `type` mcq
    v = 1 if the formulas are the same text, else the same value, else as a model says          all others
    R = (1 - alpha) v + alpha f,      f = 1 for a box that holds something;      alpha = 0 unless told otherwise

The rewards are `formula` and `boxed`, and alpha their weights: --reward 0.9*formula --reward 0.1*boxed. With alpha > 0 a
group that is all wrong teaches the format. `equivalent:PROMPT@MODEL` in place of `formula` asks the model.

Defaults: kl_beta 0.01 (paper; k3).
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import advantage, regularizer
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="WirelessMathLM: Teaching Mathematical Reasoning for LLMs in Wireless Communications with Reinforcement Learning",
    paper="arXiv:2509.23219",
    idea="formulas are checked as text, then by value, then by a model",
    confidence="reconstructed: normalisation, weight of the format",
    rewards=("formula",),
)
def wirelessmathlm(
    *, kl_beta: Annotated[float, "[0, inf)"] = 0.01, adv_eps: Annotated[float, "[0, inf)"] = 1e-6
) -> Method:
    return Method(
        advantage=use(advantage.zscore, eps=adv_eps),
        regularizer=(use(regularizer.kl, beta=kl_beta),) if kl_beta else (),
    )
