"""XRPO: Pushing the Limits of GRPO with Targeted Exploration and Exploitation. arXiv:2510.06672.

Confidence: reconstructed: the root in the bonus, how a round is dealt out, what T counts, that only right rollouts of positive
advantage are sharpened, alpha, the bonus's weight, first rollouts and rounds.

Rollouts are dealt out in rounds, to where they narrow the interval of the mean reward most (n rollouts of standard deviation s
so far, T of all prompts), one at a time:

    h(n)     = t_{1 - alpha/2, n - 1} s / sqrt(n)
    priority = h(n) - h(n + 1) + explore sqrt(log(1 + T) / n)

A prompt whose rollouts are all wrong shows `examples` solved questions in its later ones, the most similar of the policy's own
verified solutions; these are trained on the prompt that drew them. Of right rollouts, rarer ones count more:

    s_i = mean_t log pi_old(o_it),   eta_i = exp(s_i - mean_g s)
    A_i <- A_i + min(max(novelty (1 - eta_i), 0), kappa A_i)        where r_i > 0 and A_i > 0

Similarity is the cosine of the policy's features of two questions, or of those of a function `embed` of yours (the paper has an
embedding model). A question keeps its first solution, and is no example of its own.

Defaults: novelty 2.5, kappa 0.5, 2 examples (paper); alpha 0.05, explore 0.1, first 4, 2 rounds are the specification's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes.advantage import standardise
from cohort.axes.budget import expect_narrowing, share_in_rounds, spread_of
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_mean, token_mean
from cohort.signals.examples import no_solutions, remember_solutions, with_examples
from cohort.signals.features import EMBED, features, nearest
from cohort.types import Batch, Request, Rollout
from cohort.types.access import Judge, Notes, Sampler
from cohort.types.declare import State, declare, hooks, needs


def unsolved(rewards: Sequence[float]) -> bool:
    """All rollouts of a prompt are wrong."""
    return bool(rewards) and max(rewards) <= 0


@declare(group_size=2)
def narrowing(
    rows: Tensor,
    *,
    drawn: Sequence[Sequence[Rollout]],
    given: Tensor,
    total: int,
    first: int = 4,
    rounds: int = 2,
    alpha: float = 0.05,
    explore: float = 0.1,
) -> tuple[Tensor, Notes]:
    """The next round's rollouts [M], and which prompts nothing has solved. Source: arXiv:2510.06672."""
    rewards = [[rollout.reward for rollout in own if rollout.scored] for own in drawn]
    share = share_in_rounds(given, total, first=first, rounds=rounds)
    if isinstance(share, Tensor):
        return share, ()
    counts = expect_narrowing(list(map(spread_of, rewards)), given.tolist(), share, alpha=alpha, explore=explore)
    return torch.tensor(counts), [{"unsolved": unsolved(own)} for own in rewards]


@hooks(init=no_solutions, on_step_end=remember_solutions)
@declare(functions={"embed": EMBED})
def solved_examples(
    requests: Sequence[Request],
    sampler: Sampler,
    state: State,
    *,
    examples: int = 2,
    min_similarity: float = 0.5,
    corpus_size: int = 1000,
    embed: Judge | None = None,
) -> list[Rollout]:
    """Requests of prompts that nothing has solved so far, behind solved examples. Source: arXiv:2510.06672."""
    prompts = {r.prompt.id: r.prompt for r in requests if r.meta.get("unsolved") and r.prompt.question}
    found: dict[str, list[tuple[str, str]]] = {}
    if prompts and state["solved"]:
        for prompt, query in zip(prompts.values(), features(list(prompts.values()), sampler, embed), strict=True):
            others = [i for i, (asked, _) in enumerate(state["solved"]) if asked != prompt.question]
            best = nearest(query, state["features"][others], count=examples, least=min_similarity)
            found[prompt.id] = [tuple(state["solved"][others[i]]) for i in best]
    return sampler.draw([with_examples(request, found.get(request.prompt.id, ()), sampler) for request in requests])


@needs("old_logp")
@declare(group_size=2)
def sharpened(batch: Batch, *, novelty: float = 2.5, kappa: float = 0.5, eps: float = 1e-6, ddof: int = 0) -> Tensor:
    """A_i + min(max(novelty (1 - eta_i), 0), kappa A_i) where r_i > 0 and A_i > 0: [N]. Source: arXiv:2510.06672."""
    base = standardise(batch.rewards, batch.groups, eps=eps, ddof=ddof)
    bonus = torch.minimum((novelty * (1 - likelihood(batch)[1])).clamp(min=0), kappa * base)
    return torch.where((batch.rewards > 0) & (base > 0), base + bonus, base)


def likelihood(batch: Batch) -> tuple[Tensor, Tensor]:
    """s_i and eta_i [N]: the mean log-probability of a rollout's tokens, and how that compares with its group."""
    score = token_mean(batch.old_logp, batch.mask)
    return score, (score - group_mean(score, batch.groups)[batch.groups.index]).exp()


@recipe(
    title="XRPO: Pushing the Limits of GRPO with Targeted Exploration and Exploitation",
    paper="arXiv:2510.06672",
    idea="rollouts in rounds where they tell most; solved examples for what nothing solves; rare successes count more",
    confidence="reconstructed: the bonus, how rounds are dealt, which rollouts are sharpened, several defaults",
)
def xrpo(
    *,
    novelty: Annotated[float, "[0, inf)"] = 2.5,
    kappa: Annotated[float, "[0, inf)"] = 0.5,
    examples: Annotated[int, "[0, inf)"] = 2,
    min_similarity: Annotated[float, "[-1, 1]"] = 0.5,
    corpus_size: Annotated[int, "[1, inf)"] = 1000,
    embed: str | None = None,
    first: Annotated[int, "[2, inf)"] = 4,
    rounds: Annotated[int, "[1, inf)"] = 2,
    alpha: Annotated[float, "(0, 1)"] = 0.05,
    explore: Annotated[float, "[0, inf)"] = 0.1,
    adv_eps: Annotated[float, "[0, inf)"] = 1e-6,
    std_ddof: Annotated[int, (0, 1)] = 0,
) -> Method:
    seeding = {"examples": examples, "min_similarity": min_similarity, "corpus_size": corpus_size, "embed": embed}
    return Method(
        budget=use(narrowing, first=first, rounds=rounds, alpha=alpha, explore=explore),
        guidance=use(solved_examples, **seeding),
        advantage=use(sharpened, novelty=novelty, kappa=kappa, eps=adv_eps, ddof=std_ddof),
    )
