"""RL-Struct: A Lightweight Reinforcement Learning Framework for Reliable Structured Output in LLMs. arXiv:2512.00319.

Confidence: reconstructed. Known: the five components and what they mean. Inferred: every weight, each component's
formula, the test for a fence. (The preprint is said to have been withdrawn: take its figures with care.)

    R = valid + keys + 0.5 form + 0.5 fields + 0.25 length

    valid    1 if the completion is JSON                                                     json:valid
    keys     share of the required keys, of the column `required_keys` or `schema`           json:keys
    form     1 if it is { to } with nothing around it (json:fenced: one fence)               json:bare
    fields   mean over the fields of the column `answer`, an object, of their token F1       json-answer:words
    length   1 up to half of the token limit, falling to 0 at the limit                      length-limit

All is in the reward: no axis is filled, and the step is GRPO's without a KL term. Since the weights of structure dominate,
syntax is learnt first and content after it, without a schedule. A weight of 0 takes a component out of the sum: write the
rewards with --reward, as 0*length=length-limit.
"""

from __future__ import annotations

from cohort.methods import Method
from cohort.recipes.recipe import recipe


@recipe(
    title="RL-Struct: A Lightweight Reinforcement Learning Framework for Reliable Structured Output in LLMs",
    paper="arXiv:2512.00319",
    idea="JSON is rewarded level by level: syntax, keys, outer form, content, length",
    confidence="reconstructed: all weights, the formula of each component",
    rewards=(
        "valid=json:valid",
        "keys=json:keys",
        "0.5*form=json:bare",
        "0.5*fields=json-answer:words",
        "0.25*length=length-limit",
    ),
)
def rl_struct() -> Method:
    return Method()
