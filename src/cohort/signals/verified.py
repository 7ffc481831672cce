"""Rollouts verified beyond their answers, and preference pairs made of them. Source: arXiv:2505.19000."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from cohort.signals.answers import final_answer, final_number, marked
from cohort.signals.diversity import distinct
from cohort.signals.numbers import last_number
from cohort.signals.spans import thought_and_answer
from cohort.types import Batch, Rollout
from cohort.types.access import ModelAccess
from cohort.types.declare import State
from cohort.types.replay import Replay, beside, completions, joined, merged, pack, unpack

# Tokens of a run that is looked for again.
RUN = 4


class Pair(NamedTuple):
    """Two rollouts of a group by their rows; `kind` says what is wrong with the rejected one."""

    group: int
    chosen: int
    rejected: int
    kind: str


def follows(text: str) -> bool:
    """The answer is what the reasoning before it comes to: its last number, where the answer is one, else a text that holds the
    answer. True where no reasoning, or no answer, is marked."""
    thought, _ = thought_and_answer(text)
    said = marked(text)
    if said is None:
        return True
    before = text[thought[0] : thought[1]] if thought else text[: text.rfind(said)]
    number = final_number(text)
    if number is not None:
        found = last_number(before)
        return found is None or found == number
    return not before.strip() or final_answer(text).casefold() in before.casefold()


def repeats_itself(tokens: Sequence[int], most: float) -> bool:
    """More than the share `most` of the runs of four tokens occurred before."""
    return len(tokens) > RUN and 1 - distinct([tokens], n=RUN) > most


def verified_pairs(
    group: Tensor, accuracy: Tensor, consistent: Tensor, repetitive: Tensor, length: Tensor, *, min_length: float
) -> tuple[list[Pair], list[tuple[int, int]]]:
    """(pairs, (group, row) of the first rollout of each group that is wrong throughout), by label of the group.

    Chosen is the longest rollout that is right, consistent, not repetitive and of `min_length` tokens or more, the first of
    equal ones; without one a group gives no pair. Rejected is the first of each kind: "accuracy" is wrong (below 1),
    "consistency" right but inconsistent, "penalty" right and consistent, but repetitive or too short.

    Args:
        group, accuracy, consistent, repetitive, length: [N].
    """
    right, sound = accuracy >= 1, consistent > 0
    fit = (repetitive == 0) & (length >= min_length)
    kinds = {"accuracy": ~right, "consistency": right & ~sound, "penalty": right & sound & ~fit}
    pairs, reflective = [], []
    for label in group.unique().tolist():
        own = group == label
        good = (own & right & sound & fit).nonzero()[:, 0].tolist()
        first = {kind: (own & those).nonzero()[:1, 0].tolist() for kind, those in kinds.items()}
        if not bool((own & right).any()):
            reflective.append((label, first["accuracy"][0]))
        elif good:
            chosen = max(good, key=lambda row: (float(length[row]), -row))
            pairs += [Pair(label, chosen, row, kind) for kind, found in first.items() for row in found]
    return pairs, reflective


def with_verdicts(batch: Batch, rollouts: Sequence[Rollout], judged: Tensor | None, *, most_repeated: float) -> Batch:
    """The batch with `consistent` and `repetitive` [N], 0 or 1.

    Args:
        judged: [N], above 0 where the answer follows; None lets `follows` say it.
    """
    again = torch.tensor([float(repeats_itself(each.tokens, most_repeated)) for each in rollouts], device=batch.device)
    if judged is None:
        judged = torch.tensor([float(follows(each.text)) for each in rollouts], device=batch.device)
    return batch.with_rollouts(consistent=(judged > 0).to(batch.dtype), repetitive=again.to(batch.dtype))


def easy_prompts(accuracy: Tensor, drop_share: float) -> tuple[Tensor, int]:
    """(prompts [n] whose mean accuracy [P] is 1, how many of them are dropped: floor(drop_share n))."""
    easy = (accuracy >= 1).nonzero()[:, 0]
    return easy, math.floor(drop_share * len(easy) + 1e-9)


# a round's pairs in a method's state ---------------------------------------------------------------------------------


def kept_pairs(batch: Batch, rollouts: Sequence[Rollout], held: State, accuracy: Tensor, *, min_length: float) -> State:
    """`pairs`, `failed` and `accuracy` of a state `held`, with those of a step's rollouts.

    A pair is {"kind", "rows": the chosen and the rejected rollout as `pack` keeps them}; what failed {"row": of the data,
    "rows": the first rollout of a prompt that was wrong throughout}. A reflection that passes makes a pair with what it began
    with.

    Args:
        batch: with `consistent`, `repetitive`, `reflection` [N] and `reflected_logp` [N, T].
        accuracy: [N].
    """
    plain = (batch["reflection"] == 0).nonzero()[:, 0]
    own = batch.select(plain)
    how = (own["consistent"], own["repetitive"], own.lengths)
    found, reflective = verified_pairs(own.group, accuracy[plain], *how, min_length=min_length)
    pairs = [
        {"kind": pair.kind, "rows": _packed(batch, rollouts, plain[[pair.chosen, pair.rejected]])} for pair in found
    ]
    failed = [{"row": int(own["row"][row]), "rows": _packed(batch, rollouts, plain[[row]])} for _, row in reflective]
    seen = held["accuracy"].clone()
    for row in own["row"].unique().tolist():
        seen[row] = float(accuracy[plain][own["row"] == row].mean())
    good = (accuracy >= 1) & (batch["consistent"] > 0) & (batch["repetitive"] == 0) & (batch.lengths >= min_length)
    for each in held["failed"]:
        rows = (good & (batch["reflection"] > 0) & (batch["row"] == each["row"])).nonzero()[:1, 0]
        if rows.numel() and "ref" in each:
            chosen = _packed(batch, rollouts, rows)
            ref = batch.stored("reflected_logp")[rows].detach().cpu()
            pairs.append({"kind": "reflection", "rows": chosen, "ref": ref, "beside": each})
    return {"pairs": [*held["pairs"], *pairs], "failed": [*held["failed"], *failed], "accuracy": seen}


def _packed(batch: Batch, rollouts: Sequence[Rollout], rows: Tensor) -> State:
    return pack(batch.select(rows), [rollouts[row] for row in rows.tolist()])


def referred(state: State, access: ModelAccess, *, everything: bool) -> State:
    """`pairs` and `failed` of a state with the policy's log-probabilities now as `ref`, of all or of those that have none."""

    def of(each: State) -> State:
        if "beside" in each or ("ref" in each and not everything):
            return each
        replay = unpack(each["rows"])
        logp = access.log_probs(replay.contexts, completions(replay.batch), support=replay.support)["logp"].cpu()
        return {**each, "ref": pad(logp, (0, replay.batch.mask.shape[1] - logp.shape[1]))}

    return {name: [of(each) for each in state[name]] for name in ("pairs", "failed")}


def replayed(pairs: Sequence[State], count: int, place: int) -> Replay | None:
    """Pairs [place count, (place + 1) count) of those that have a reference, from the first again behind the last; with their
    reference as `pair_logp` [N, T], and as `paired` [N] 1 and -1 for the chosen and the rejected."""
    whole = [each for each in pairs if "ref" in each]
    picked = (
        [whole[i % len(whole)] for i in range(place * count, place * count + min(count, len(whole)))] if whole else []
    )
    if not picked:
        return None
    parts = []
    for each in picked:
        sides = [each, each["beside"]] if "beside" in each else [each]
        replay = joined([side["rows"] for side in sides])
        width = replay.batch.mask.shape[1]
        ref = torch.cat([pad(side["ref"], (0, width - side["ref"].shape[1])) for side in sides])
        batch = replay.batch.with_tokens(pair_logp=ref).replace(group=torch.zeros(2, dtype=torch.int64))
        parts.append(replace(replay, batch=batch.with_rollouts(paired=torch.tensor([1.0, -1.0]))))
    return beside(merged(parts))
