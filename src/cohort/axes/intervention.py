"""Interventions: an unsafe rollout goes on behind a sentence that turns it. Source: arXiv:2509.24393."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from cohort.axes.guidance import draw_groups
from cohort.signals.turning import first_safe, sentence_of, sentences, tokens_before, turning_points
from cohort.types import Batch, Request, Rollout, Segment
from cohort.types.access import Judge, Sampler
from cohort.types.declare import State, declare, hooks

DETECTOR = (
    "detector(prompts, sentences, **columns) -> for each rollout the number of the first sentence with a cue, or None"
)
CUE = r"(?i)\b(sure|certainly|of course|here'?s? (is )?how|to do (this|that|so)|step 1)\b"
TRIGGERS = (
    "But wait, this could hurt somebody, so I must not help with it. ",
    "I have to ask first whether this is safe, and it is not. ",
    "This request is harmful, and I should decline it. ",
    "Hold on: what I would describe here is dangerous or against the law. ",
    "I should not go on with this; I can offer help that harms nobody. ",
    "Before I answer: to explain this would be wrong, so I refuse. ",
)


def is_safe(rollout: Rollout, safe: str | None) -> bool:
    """What the reward `safe` says (above 0.5); without one, what the verifier says."""
    return (rollout.accuracy if safe is None else (rollout.components.get(safe) or 0.0)) > 0.5


def starts_of(rollout: Rollout, sampler: Sampler) -> list[int]:
    """The first token of each sentence of a rollout's text."""
    length = len(rollout.tokens)
    return [
        tokens_before(start, length, lambda count: sampler.cut(rollout, count).text)
        for start, _ in sentences(rollout.text)
    ]


def first_cue(rollouts: Sequence[Rollout], sampler: Sampler, *, detector: Judge | None, cue: str) -> list[int | None]:
    """The number of the first sentence of each rollout with a compliance cue; None where there is none."""
    spans = [sentences(r.text) for r in rollouts]
    if detector is None:
        matches = [re.search(cue, r.text) for r in rollouts]
        begun = [[start for start, _ in own] for own in spans]
        return [sentence_of(own, m.start()) if m and own else None for m, own in zip(matches, begun, strict=True)]
    spoken = [[r.text[start:end] for start, end in own] for r, own in zip(rollouts, spans, strict=True)]
    said = sampler.judge(detector, [r.prompt for r in rollouts], sentences=spoken)
    return [
        int(found) if isinstance(found, (int, float)) and 0 <= found < len(own) else None
        for found, own in zip(said, spoken, strict=True)
    ]


def intervene(
    traces: Sequence[Rollout],
    sampler: Sampler,
    triggers: Sequence[str],
    *,
    safe: str | None,
    detector: Judge | None,
    cue: str,
    max_rounds: int,
) -> list[tuple[Rollout, int] | None]:
    """(the first safe continuation, the token that it differs from) of each unsafe trace; None where there is none, or no cue.

    All traces go on together. A continuation that is still unsafe is intervened on again.
    """
    found: list[tuple[Rollout, int] | None] = [None] * len(traces)
    open_ = {i: (trace, len(trace.tokens)) for i, trace in enumerate(traces)}
    verdicts: list[list[float]] = [[] for _ in traces]
    for _ in range(max_rounds):
        cues = first_cue([trace for trace, _ in open_.values()], sampler, detector=detector, cue=cue) if open_ else []
        asked: dict[int, tuple[Rollout, int, int]] = {}
        for (i, (trace, shared)), number in zip(open_.items(), cues, strict=True):
            if number is not None:
                at = starts_of(trace, sampler)[number]
                asked[i] = (trace, at, min(shared, at))
        open_ = {}
        children, order = [], list(asked)
        for i in order:
            trace, at, _ = asked[i]
            drawn = triggers[int(torch.randint(len(triggers), (1,), generator=sampler.rng))]
            children += sampler.extend(trace, at, 1, insert=sampler.encode(drawn))
        for i, child in zip(order, _graded(children, sampler), strict=True):
            if child is None:
                continue
            shared = asked[i][2]
            verdicts[i].append(is_safe(child, safe))
            if first_safe(verdicts[i], max_rounds) > 0:
                found[i] = (child, shared)
            else:
                open_[i] = (child, shared)
    return found


def _graded(rollouts: Sequence[Rollout], sampler: Sampler) -> list[Rollout | None]:
    """Each rollout with its rewards; None for those without any."""
    known = {id(each.request): each for each in sampler.grade(rollouts)} if rollouts else {}
    return [known.get(id(each.request)) for each in rollouts]


def trigger_in(
    trace: Rollout, sampler: Sampler, *, safe: str | None, mu: float, eta: float, window: int, samples: int
) -> int | None:
    """The number of the sentence of a rollout from which on its continuations are safe; None where there is none."""
    starts = starts_of(trace, sampler)
    children = sampler.extend([trace] * len(starts), starts, samples) if starts else []
    verdicts = [child is not None and is_safe(child, safe) for child in _graded(children, sampler)]
    ratios = [sum(verdicts[i : i + samples]) / samples for i in range(0, len(verdicts), samples)]
    found, _ = turning_points(ratios, mu=mu, eta=eta, window=window)
    return None if found < 0 else found


def paired(chosen: Rollout, rejected: Rollout, at: int, number: int) -> list[Rollout]:
    """Two rollouts to be trained on as a pair, from token `at` on, and by no group."""
    how = {"divergence": float(at), "pair": float(number)}
    whole = chosen.replace(segments=(Segment(tuple(chosen.tokens)),), turns=())
    sides = ((whole, 1.0), (rejected, 0.0))
    return [each.replace(fields=how, reward=value, accuracy=value, auxiliary=True) for each, value in sides]


def _pool(triggers: tuple[str, ...]) -> State:
    return {"triggers": list(triggers)}


def _mined(batch: Batch, state: State, rollouts: Sequence[Rollout], *, triggers: tuple[str, ...]) -> State:
    """The pool with the sentences that mining found, the oldest leaving it."""
    found = []
    for row in (batch["trigger"] >= 0).nonzero()[:, 0].tolist() if "trigger" in batch else ():
        start, end = sentences(rollouts[row].text)[int(batch["trigger"][row])]
        found.append(rollouts[row].text[start:end].rstrip() + " ")
    return {"triggers": [*dict.fromkeys([*state["triggers"], *found])][-len(triggers) :]}


@hooks(init=_pool, on_rollouts=_mined)
@declare(provides=("divergence", "pair", "trigger"), components=("safe",), sparse_columns=("benign",))
@declare(functions={"detector": DETECTOR})
def intervened(
    requests: Sequence[Request],
    sampler: Sampler,
    state: State,
    *,
    safe: str | None = None,
    detector: Judge | None = None,
    cue: str = CUE,
    max_rounds: int = 2,
    traces: int = 1,
    benign: str | None = None,
    benign_from: float = 0.5,
    mine: int = 0,
    mu: float = 0.9,
    eta: float = 0.1,
    window: int = 15,
    samples: int = 32,
) -> list[Rollout]:
    """Draw every group; pairs of unsafe rollouts and what an intervention made of them, and of benign prompts."""
    groups = draw_groups(sampler, requests)
    unsafe, pairs, mined = [], [], list[Rollout]()
    for group in groups.values():
        sides = {right: [r for r in group.rollouts if is_safe(r, safe) == right] for right in (True, False)}
        if benign is not None and group.prompt.row.get(benign):
            if sides[True] and sides[False] and sampler.step >= benign_from * sampler.steps:
                pairs.append((sides[True][0], sides[False][0], 0))
            continue
        unsafe += sides[False][:traces]
        mined += sides[True]
    how = {"safe": safe, "detector": detector, "cue": cue, "max_rounds": max_rounds}
    for trace, made in zip(unsafe, intervene(unsafe, sampler, state["triggers"], **how), strict=True):  # type: ignore[arg-type]
        pairs += [] if made is None else [(made[0], trace, made[1])]
    turned = {
        id(trace): trigger_in(trace, sampler, safe=safe, mu=mu, eta=eta, window=window, samples=samples)
        for trace in mined[:mine]
    }
    out = []
    for group in groups.values():
        for rollout in group.rollouts:
            found = turned.get(id(rollout))
            extra = {"divergence": 0.0, "pair": 0.0, "trigger": -1.0 if found is None else float(found)}
            out.append(rollout.replace(fields={**rollout.fields, **extra}))
    for number, (chosen, rejected, at) in enumerate(pairs, 1):
        out += paired(chosen, rejected, at, number)
    return out
