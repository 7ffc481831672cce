"""ExPO: Unlocking Hard Reasoning with Self-Explanation-Guided Reinforcement Learning. arXiv:2507.02834.

Confidence: reconstructed: the normalisation of the likelihood term, on which prompts it is used, and its weight. Known:
self-explanations, the term of ExP-GRPO, the pairs of ExP-DPO. (Code HumainLab/ExPO_rl_reasoning_by_explanation, not read.)

The policy is shown the question with its answer, and explains why that is the answer: c ~ pi(.|q, a). The explanation with the
answer behind it is a good sample that the policy finds likely, and is trained on behind the plain question:

    loss = GRPO - beta (1/|U|) sum_{q in U} ell_q,   ell_q = mean of log pi(y_t | q, y_<t), y = (c, a);  norm="sum": their sum
    U    = all prompts of the step, or those that no rollout solved (scope="all_wrong"), where GRPO is silent
    beta = start;  "linear": start + (end - start) f;  "cosine": end + (start - end)(1 + cos pi f)/2;  f = min(step/steps, 1)

variant="dpo" has no GRPO part: DPO, chosen y, rejected the prompt's first wrong rollout, with beta_dpo and the reference of
the run (for the paper's iterative form begin new runs from the model). The answer comes behind the explanation as answer_text
says, unless that ends with it. One explanation a prompt, drawn anew in every step.

Defaults: beta 0.1 with the token mean, constant, beta_dpo 0.1 are ours (the paper's were not seen). Column `answer`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from cohort.axes.guidance import accuracy, by_prompt, draw_groups, flattened, with_guidance, without_guidance
from cohort.axes.objective import logistic, mean_of_pairs, preferred_pairs, sequence_log_ratio
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean, token_sum
from cohort.types import Batch, Request, Rollout, Segment, StepInfo
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs

EXPLAIN = """{question}

The correct answer is {text}. Explain step by step why, and end with the answer."""
NORMS = {"token_mean": token_mean, "sum": token_sum}


def with_answer(explanation: Rollout, answer: str, answer_text: str, sampler: Sampler) -> Rollout:
    """The explanation with the answer behind it, as an answer to the plain prompt."""
    text, tokens = explanation.text, explanation.tokens
    end = tokens[-1:] if explanation.finished and tokens and tokens[-1] in sampler.stop_ids else []
    # "... = 111" does not end with the answer 11.
    if not re.search(rf"(?<![\w.-]){re.escape(answer)}\s*$", text):
        added = answer_text.format(answer=answer)
        text, tokens = text + added, [*tokens[: len(tokens) - len(end)], *sampler.encode(added), *end]
    whole = explanation.replace(segments=(Segment(tuple(tokens)),), turns=(), text=text, reward=1.0, accuracy=1.0)
    return without_guidance(whole).replace(fields={"explained": 1.0}, auxiliary=True)


@declare(columns=("answer",), provides=("explained",))
def self_explained(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    answer: str = "answer",
    answer_text: str = "\n{answer}",
    scope: str = "all",
    pairs: bool = False,
) -> list[Rollout]:
    """Draw every group, and explain each answer, beside the first wrong rollout (`pairs`). Source: arXiv:2507.02834."""
    groups = draw_groups(sampler, requests)
    first = [own[0] for key, own in by_prompt(requests).items() if key in groups]
    wanted = [r for r in first if scope == "all" or not accuracy(groups[r.prompt.id])]
    asked = [with_guidance(r, EXPLAIN, str(r.prompt.row[answer]), sampler, salt=1) for r in wanted]
    made: list[Rollout] = []
    for drawn in sampler.generate(asked) if asked else []:
        if drawn.status != "failed":
            made.append(with_answer(drawn, str(drawn.prompt.row[answer]), answer_text, sampler))
            wrong = [r for r in groups[drawn.prompt.id].rollouts if not r.accuracy > 0][:pairs]
            made += [r.replace(fields={"explained": -1.0}, reward=0.0, accuracy=0.0, auxiliary=True) for r in wrong]
    return [*flattened(groups.values()), *made]


def beta_at(step: int, *, start: float, end: float, steps: int, schedule: str) -> float:
    """The weight of the explanations after so many steps."""
    done = min(step / steps, 1.0)
    if schedule == "linear":
        return start + (end - start) * done
    return start if schedule == "constant" else end + (start - end) * (1 + math.cos(math.pi * done)) / 2


@needs("explained")
@declare(couples=True, auxiliary=True)
def explanations(
    batch: Batch,
    *,
    beta: float = 0.1,
    beta_end: float = 0.0,
    schedule: str = "constant",
    beta_steps: int | None = None,
    norm: str = "token_mean",
    info: StepInfo,
) -> Tensor:
    """-beta times the mean of ell over the explanations of the minibatch: scalar. Source: arXiv:2507.02834."""
    rows = batch["explained"] > 0
    weight = beta_at(info.step, start=beta, end=beta_end, steps=beta_steps or info.steps, schedule=schedule)
    return -weight * NORMS[norm](batch.logp, batch.mask)[rows].sum() / rows.sum().clamp(min=1)


@needs("explained", "ref_logp")
@declare(couples=True, auxiliary=True)
def explained_pairs(batch: Batch, *, beta: float = 0.1) -> Tensor:
    """mean of -log sigmoid(r_chosen - r_rejected), r = beta sum_t (logp - ref_logp): scalar. Source: arXiv:2507.02834."""
    pairs = batch.select((batch["explained"].abs() > 0).nonzero()[:, 0])
    reward = beta * sequence_log_ratio(pairs)
    better, worse = preferred_pairs(pairs)
    return mean_of_pairs(logistic(reward[better] - reward[worse])) + 0 * batch.logp.sum()


@recipe(
    title="ExPO: Unlocking Hard Reasoning with Self-Explanation-Guided Reinforcement Learning",
    paper="arXiv:2507.02834",
    idea="the policy explains the answer that it is shown, and learns the explanation as its own",
    confidence="reconstructed: normalisation, scope and weight of the likelihood term",
)
def expo_explain(
    *,
    variant: Annotated[str, ("grpo", "dpo")] = "grpo",
    answer: str = "answer",
    answer_text: str = "\n{answer}",
    scope: Annotated[str, ("all", "all_wrong")] = "all",
    norm: Annotated[str, tuple(NORMS)] = "token_mean",
    beta: Annotated[float, "[0, inf)"] = 0.1,
    beta_end: Annotated[float, "[0, inf)"] = 0.0,
    schedule: Annotated[str, ("constant", "linear", "cosine")] = "constant",
    beta_steps: Annotated[int | None, "[1, inf)"] = None,
    beta_dpo: Annotated[float, "(0, inf)"] = 0.1,
) -> Method:
    how = {"answer": answer, "answer_text": answer_text, "scope": scope}
    if variant == "dpo":
        return Method(guidance=use(self_explained, **how, pairs=True), objective=use(explained_pairs, beta=beta_dpo))
    fading = {"beta": beta, "beta_end": beta_end, "schedule": schedule, "beta_steps": beta_steps}
    return Method(guidance=use(self_explained, **how), regularizer=(use(explanations, norm=norm, **fading),))
