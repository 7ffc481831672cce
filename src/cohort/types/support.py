"""The tokens that could be drawn, and the distribution over them: one and the same for the engine and the trainer.

A rollout's tokens are drawn from softmax((logits + bias) / temperature) over a support: all tokens, without the stop
tokens before a minimum length, and of them what top-k, min-p and top-p kept. The ratio of an unchanged policy is 1 only if
the trainer takes its log-probabilities over the same support. Bias and minimum length are a `Rule` that can be applied
again; what truncation kept hangs on logits that the trainer's differ from by rounding, and after an update truly, so the
sets themselves are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cohort.devices import tensor_on, to_device, to_host
from cohort.types.soft import Mixer, SoftStep

# Tokens that could be drawn in place of one: ascending token ids (int32) or, where that takes less room, the bits of the
# whole vocabulary as numpy packs them (uint8).
Candidates = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rule:
    """The sampling options that shape every distribution of a rollout.

    Attributes:
        bias: token id -> what is added to its logit, before the temperature.
        min_new_tokens: tokens of a completion before which no stop token can be drawn.
        stop_ids: the stop tokens.
    """

    bias: Mapping[int, float] = field(default_factory=dict)
    min_new_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()

    @property
    def free(self) -> bool:
        """True if it changes nothing."""
        return not self.bias and not (self.min_new_tokens > 0 and self.stop_ids)

    def apply(
        self, logits: Tensor, column: Tensor, *, rows: Tensor | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        """[M, V] logits with the bias, -inf at stop tokens before the minimum length.

        Args:
            column: [M] place of the token in its completion, from 0.
            rows: [M] bool, the rows that the rule holds for; None for all.
            tokens: [M] tokens that were drawn; a stop token among them was none that the rule excluded.
        """
        if self.bias:
            ids = tensor_on(list(self.bias), logits.device)
            added = tensor_on(list(self.bias.values()), logits.device, logits.dtype).expand(len(logits), -1)
            logits = logits.index_add(1, ids, added if rows is None else added * rows[:, None])
        if self.min_new_tokens > 0 and self.stop_ids:
            stops = tensor_on(sorted(self.stop_ids), logits.device)
            early = column < self.min_new_tokens
            early = early if rows is None else early & rows
            early = early if tokens is None else early & ~torch.isin(tokens, stops)
            stop = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device).index_fill(0, stops, True)
            logits = logits.masked_fill(early[:, None] & stop, -torch.inf)
        return logits


@dataclass(frozen=True)
class Support:
    """The sets of tokens that the L tokens of a rollout were drawn from.

    Attributes:
        candidates: L sets, None for a token that nothing was left out for (or that was not drawn); None if that holds for all.
        soft: L soft steps, None for a discrete token; None if all are discrete. mixer: how the soft ones were drawn.
    """

    rule: Rule
    candidates: list[Candidates | None] | None = None
    soft: list[SoftStep | None] | None = None
    mixer: Mixer | None = None

    def cut(self, count: int) -> Support:
        """That of the first `count` tokens."""
        candidates, soft = (None if each is None else each[:count] for each in (self.candidates, self.soft))
        return Support(self.rule, candidates, soft, self.mixer)  # type: ignore[arg-type]

    def soft_step(self, place: int) -> tuple[SoftStep, Mixer] | None:
        """The soft step at a place, and how it was drawn; None if the token there is discrete."""
        step = None if self.soft is None else self.soft[place]
        return None if step is None or self.mixer is None else (step, self.mixer)

    def state(self) -> dict[str, Any]:
        """As tensors and numbers, for a checkpoint."""
        rule: dict[str, Any] = {"bias": dict(self.rule.bias), "min": self.rule.min_new_tokens}
        rule["stops"] = sorted(self.rule.stop_ids)
        if self.soft is not None and self.mixer is not None:
            steps = [(at, step) for at, step in enumerate(self.soft) if step is not None]
            rule["mixer"] = self.mixer.state()
            rule["soft"] = torch.tensor([len(self.soft), *(at for at, _ in steps)], dtype=torch.int32)
            rule["soft_ids"] = torch.from_numpy(np.stack([step.ids for _, step in steps]))
            rule["soft_scores"] = torch.from_numpy(np.stack([step.scores for _, step in steps]))
        if self.candidates is None:
            return {**rule, "kept": None}
        # Checkpoints call them "kept". One tensor of bytes: -1 for None, -2 - n for n bytes of bits, n for n token ids.
        sizes = [-1 if k is None else -2 - len(k) if k.dtype == np.uint8 else len(k) for k in self.candidates]
        held = [k.view(np.uint8) for k in self.candidates if k is not None]
        data = np.concatenate(held) if held else np.empty(0, np.uint8)
        return {**rule, "kept": torch.from_numpy(data), "sizes": torch.tensor(sizes, dtype=torch.int32)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Support:
        """What `state` gave."""
        rule = Rule(dict(state["bias"]), int(state["min"]), frozenset(state["stops"]))
        soft: list[SoftStep | None] | None = None
        mixer = Mixer.of_state(state["mixer"]) if "mixer" in state else None
        if mixer is not None:
            length, *places = state["soft"].tolist()
            soft = [None] * length
            for at, *step in zip(
                places, state["soft_ids"].cpu().numpy(), state["soft_scores"].cpu().numpy(), strict=True
            ):
                soft[at] = SoftStep(*step)
        if state["kept"] is None:
            return cls(rule, None, soft, mixer)
        data, at = state["kept"].cpu().numpy(), 0
        candidates: list[Candidates | None] = []
        for size in state["sizes"].tolist():
            length = 0 if size == -1 else -2 - size if size < 0 else 4 * size
            held, at = data[at : at + length], at + length
            candidates.append(None if size == -1 else held if size < 0 else held.view(np.int32))
        return cls(rule, candidates, soft, mixer)


def concatenated(parts: Sequence[tuple[int, Support | None]]) -> Support | None:
    """The support of runs of tokens, each with its length, one after the other; the last rule holds for all."""
    supports = [support for _, support in parts if support is not None]
    if not supports:
        return None
    candidates: list[Candidates | None] | None = None
    if any(support.candidates is not None for support in supports):
        candidates = []
        for length, support in parts:
            candidates += [None] * length if support is None or support.candidates is None else support.candidates
    soft: list[SoftStep | None] | None = None
    mixers = [support.mixer for support in supports if support.mixer is not None]
    if mixers:
        soft = []
        for length, support in parts:
            soft += [None] * length if support is None or support.soft is None else support.soft
    return Support(supports[-1].rule, candidates, soft, mixers[-1] if mixers else None)


@dataclass(frozen=True)
class Flat:
    """The supports of M tokens of several rollouts.

    Attributes:
        rules: distinct rules; rule: [M] int64, which of them holds for each token, -1 for none.
        column: [M] int64, place of each token in its completion.
        candidates: M sets, or None; None if no token has one.
        soft: M soft steps, or None, and how each was drawn; None if all tokens are discrete.
    """

    rules: tuple[Rule, ...]
    rule: Tensor
    column: Tensor
    candidates: list[Candidates | None] | None
    soft: list[tuple[SoftStep, Mixer] | None] | None = None

    @classmethod
    def of(cls, supports: Sequence[Support | None], row: Tensor, column: Tensor) -> Flat | None:
        """Of tokens at [M] `column` of the completions [M] `row`; None if nothing was left out or added anywhere."""
        if all(support is None for support in supports):
            return None
        rules: list[Rule] = []
        which = []
        for support in supports:
            if support is not None and support.rule not in rules:
                rules.append(support.rule)
            which.append(-1 if support is None else rules.index(support.rule))
        candidates: list[Candidates | None] | None = None
        if any(support is not None and support.candidates is not None for support in supports):
            sets = [None if support is None else support.candidates for support in supports]
            places = zip(row.tolist(), column.tolist(), strict=True)
            candidates = [None if (own := sets[i]) is None else own[j] for i, j in places]
        soft: list[tuple[SoftStep, Mixer] | None] | None = None
        if any(support is not None and support.mixer is not None for support in supports):
            places = zip(row.tolist(), column.tolist(), strict=True)
            soft = [None if (own := supports[i]) is None else own.soft_step(j) for i, j in places]
        return cls(tuple(rules), tensor_on(which, row.device)[row], column, candidates, soft)

    def part(self, start: int, stop: int) -> Flat:
        """That of tokens start .. stop - 1."""
        candidates = None if self.candidates is None else self.candidates[start:stop]
        soft = None if self.soft is None else self.soft[start:stop]
        return Flat(self.rules, self.rule[start:stop], self.column[start:stop], candidates, soft)

    def softened(self, logp: Tensor, logits: Tensor) -> Tensor:
        """[M] log-probabilities, with log densities in place of those of soft steps, from logits [M, V]."""
        mixers: dict[Mixer, list[int]] = {}
        for place, step in enumerate(self.soft or ()):
            if step is not None:
                mixers.setdefault(step[1], []).append(place)
        for mixer, places in mixers.items():
            steps = [step[0] for place in places if (step := (self.soft or [])[place]) is not None]
            at = tensor_on(places, logits.device)
            ids, scores = mixed(steps, logits.device)
            own = mixer.logp(logits[at].gather(1, ids), scores)
            logp = logp.index_put((at,), own.to(logp.dtype))
        return logp

    def apply(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """[M, V] logits with what was added to them; -inf where a token could not be drawn. The tokens [M] themselves could.

        The gradient goes to the logits of the support alone.
        """
        for i, rule in enumerate(self.rules):
            if not rule.free:
                logits = rule.apply(logits, self.column, rows=self.rule == i, tokens=tokens)
        if self.candidates is not None:
            out = excluded(self.candidates, logits.shape[1], logits.device).scatter_(1, tokens[:, None], False)
            logits = logits.masked_fill(out, -torch.inf)
        return logits


def mixed(steps: Sequence[SoftStep], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """(ids int64, scores) [n, K] of soft steps of one mixer."""
    ids, scores = (to_device(torch.from_numpy(np.stack(each)), device) for each in zip(*steps, strict=True))
    return ids.to(torch.int64), scores


def candidate_sets(keep: Tensor) -> list[Candidates]:
    """The sets of tokens that `keep` [B, V] bool holds, one a row."""
    vocabulary = keep.shape[1]
    (count,) = to_host(keep.sum(1))
    wide = count * 32 > vocabulary
    many, few = (keep[to_device(rows.nonzero()[:, 0], keep.device)] for rows in (wide, ~wide))
    held, ids = (each.numpy() for each in to_host(many, few.nonzero()[:, 1].to(torch.int32)))
    bits = iter(np.packbits(held, axis=1))
    ends = iter(np.split(ids, count[~wide].cumsum(0).numpy()))
    return [next(bits) if full else next(ends) for full in wide.tolist()]


def excluded(candidates: Sequence[Candidates | None], vocabulary: int, device: torch.device | str = "cpu") -> Tensor:
    """[M, V] bool: True at the tokens that the sets do not hold; a None holds all."""
    out = torch.ones(len(candidates), vocabulary, dtype=torch.bool, device=device)
    kinds = [None if held is None else held.dtype == np.uint8 for held in candidates]
    free, listed, packed = ([i for i, kind in enumerate(kinds) if kind is asked] for asked in (None, False, True))
    # Made where the logits are: what travels there is as large as the sets.
    if free:
        out[tensor_on(free, device)] = False
    if listed:
        sets = [held for i in listed if (held := candidates[i]) is not None]
        rows = torch.tensor(listed).repeat_interleave(torch.tensor([len(held) for held in sets]))
        columns = torch.from_numpy(np.concatenate(sets)).to(torch.int64)
        out[to_device(rows, device), to_device(columns, device)] = False
    if packed:
        octets = torch.from_numpy(np.stack([held for i in packed if (held := candidates[i]) is not None]))
        octets = to_device(octets, device)
        # numpy packs the first of eight into the highest bit.
        bits = octets[:, :, None] >> torch.arange(7, -1, -1, dtype=torch.uint8, device=device) & 1
        out[tensor_on(packed, device)] = bits.flatten(1)[:, :vocabulary] == 0
    return out
