"""Token ids to be scored: contexts and completions of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cohort.types.support import Support


@dataclass(frozen=True)
class Sequences:
    """n contexts with a completion each.

    Attributes:
        context: n int64 tensors, what the policy is conditioned on (at least one token each).
        completion: n int64 tensors, the tokens whose log-probabilities are wanted (possibly none).
        support: for each completion what its tokens were drawn over, None for the model's own distribution, as of a text
            that was not sampled; () if that holds for all.
    """

    context: tuple[Tensor, ...]
    completion: tuple[Tensor, ...]
    support: tuple[Support | None, ...] = ()

    def __len__(self) -> int:
        return len(self.context)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, context included."""
        return [len(c) + len(o) for c, o in zip(self.context, self.completion, strict=True)]

    def select(self, rows: Tensor) -> Sequences:
        """The sequences at `rows` [n] int64."""
        picked = rows.tolist()
        return Sequences(
            tuple(self.context[i] for i in picked),
            tuple(self.completion[i] for i in picked),
            tuple(self.support[i] for i in picked) if self.support else (),
        )

    def in_contexts(self, contexts: Sequence[Tensor]) -> Sequences:
        """The same completions, each in another context: n int64 tensors."""
        return replace(self, context=tuple(contexts))

    def __add__(self, other: Sequences) -> Sequences:
        """Both, one after the other."""
        none = [(None,) * len(each) if not each.support else each.support for each in (self, other)]
        return Sequences(self.context + other.context, self.completion + other.completion, none[0] + none[1])

    def micro_batches(self, max_tokens: int) -> list[Tensor]:
        """Rows [n] int64 of micro-batches of at most `max_tokens` padded tokens (at least one sequence each).

        Sequences of similar length go together, so that little of a micro-batch is padding.
        """
        lengths = self.lengths
        order = sorted(range(len(self)), key=lambda i: (-lengths[i], i))
        out: list[list[int]] = []
        for i in order:
            # The first sequence of a micro-batch is its longest.
            if out and lengths[out[-1][0]] * (len(out[-1]) + 1) <= max_tokens:
                out[-1].append(i)
            else:
                out.append([i])
        return [torch.tensor(rows) for rows in out]
