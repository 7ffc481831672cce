"""Solved questions of the policy's own as examples in a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cohort.signals.features import features
from cohort.signals.questions import question, rewrite_question
from cohort.types import Request, Rollout
from cohort.types.access import Judge, ModelAccess, Sampler
from cohort.types.declare import State

# Characters of a solution that are shown.
MOST = 4000
EXAMPLE = "Question:\n{question}\n\nSolution:\n{solution}\n\n"
ASKED = "Question:\n{question}"


def no_solutions() -> State:
    """State of `remember_solutions`: the pairs (question, solution) [n], and `features` [n, d] of the questions."""
    return {"solved": [], "features": torch.empty(0, 0)}


def remember_solutions(
    state: State, rollouts: Sequence[Rollout], access: ModelAccess, *, corpus_size: int, embed: Judge | None
) -> State:
    """The first right solution of every question, of the newest `corpus_size` questions (a hook `on_step_end`)."""
    known = {asked for asked, _ in state["solved"]}
    new: dict[str, Rollout] = {}
    for rollout in rollouts:
        if rollout.accuracy > 0 and question(rollout.prompt) not in known:
            new.setdefault(question(rollout.prompt), rollout)
    if not new:
        return state
    solved = [*state["solved"], *([asked, rollout.text[:MOST]] for asked, rollout in new.items())]
    found = features([rollout.prompt for rollout in new.values()], access, embed)
    held = torch.cat([state["features"], found]) if known else found
    return {"solved": solved[-corpus_size:], "features": held[-corpus_size:]}


def with_examples(request: Request, examples: Sequence[tuple[str, str]], sampler: Sampler) -> Request:
    """The request with as many of the solved examples (question, solution) before its question as leave room for its tokens;
    itself if that is none."""
    for count in range(len(examples), 0, -1):
        shown = "".join(EXAMPLE.format(question=asked, solution=said) for asked, said in examples[:count])
        asking = shown + ASKED.format(question=question(request.prompt))
        made = rewrite_question(request, asking, sampler, examples=count)
        if sampler.context_length is None or len(made.context) + request.max_new_tokens <= sampler.context_length:
            return made
    return request
