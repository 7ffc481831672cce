"""Attention of a decoding step by torch's FlashAttention for sequences of unequal length (`varlen_attn`), on GPUs.

A context is a sequence of keys that all its rows meet at once; what a row has drawn is another that it meets alone, and of
which only the tokens that are there are read. The two are merged by their log-sum-exp, as in arXiv:2205.14135.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cohort.engine.native.grid import Grid
from cohort.errors import out_of_memory

# Widest head that its kernels know.
WIDEST = 256


def varlen() -> tuple[Callable[..., Any], Any] | None:
    """torch's (`varlen_attn`, request for the log-sum-exp); None before the version that reads a part of a sequence's keys."""
    try:
        from torch.nn.attention.varlen import AuxRequest, varlen_attn
    except ImportError:
        return None
    if "seqused_k" not in inspect.signature(varlen_attn).parameters:
        return None
    return varlen_attn, AuxRequest(lse=True)


class Flash:
    """What is known of attending this way: it is done as long as it gives what plain products give.

    Args:
        attend: `varlen_attn`, and what asks it for the log-sum-exp.
    """

    def __init__(self, attend: tuple[Callable[..., Any], Any]) -> None:
        self.attend = functools.partial(attend[0], return_aux=attend[1], enable_gqa=True)
        self.works, self.tried = True, False

    @classmethod
    def on(cls, device: torch.device, dtype: torch.dtype) -> Flash | None:
        """Where it can be tried."""
        found = varlen() if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) else None
        return None if found is None else cls(found)

    def serves(self, width: int, softcap: float | None, narrow: bool) -> bool:
        """Whether the kernels compute such attention; `narrow`: rows do not see all tokens."""
        return self.works and softcap is None and not narrow and width % 8 == 0 and width <= WIDEST

    def __call__(self, step: Callable[[], Tensor], right: Callable[[], Tensor]) -> Tensor:
        """What `step` gives; the first time it is compared with what is right."""
        if self.tried:
            return step()
        expected = right()
        try:
            found = step()
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            return self._give_up(str(error).splitlines()[0], expected)
        if not float((found - expected).abs().max()) <= 0.02 * (1.0 + float(expected.abs().max())):
            return self._give_up("it gives other numbers", expected)
        self.tried = True
        return found

    def _give_up(self, why: str, expected: Tensor) -> Tensor:
        self.works = False
        warnings.warn(f"decoding goes on without FlashAttention: {why}", RuntimeWarning, stacklevel=3)
        return expected

    def step(
        self,
        q: Tensor,
        own: tuple[Tensor, Tensor],
        stacked: tuple[Tensor, Tensor],
        grid: Grid,
        count: Tensor,
        lengths: Tensor,
        scale: float,
    ) -> Tensor:
        """[B, K, R, D]: each row attends to its context and to its own tokens.

        Args:
            q: [B, K, R, D].
            own, stacked: keys and values [rows, K, t, D] of the rows' own tokens, [M, K, P, D] of the contexts, which lie in
                memory token by token.
            count: [B] tokens of each row's own; lengths: [M] of each context.
        """
        heads = q.flatten(1, 2).contiguous()
        far, far_mass = self._meet(
            heads.index_select(0, grid.order), stacked, grid.starts, grid.rows.shape[1], lengths, scale
        )
        each = torch.arange(len(q) + 1, dtype=torch.int32, device=q.device)
        near, near_mass = self._meet(heads, own, each, 1, count, scale)
        far, far_mass = far.index_select(0, grid.place), far_mass.index_select(1, grid.place)
        share = torch.sigmoid(far_mass - near_mass).t()[..., None]
        return torch.lerp(near.float(), far.float(), share).to(q.dtype).view(q.shape)

    def _meet(
        self, q: Tensor, cache: tuple[Tensor, Tensor], starts: Tensor, widest: int, used: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """([B, H, D], log-sum-exp [H, B]) of queries [B, H, D], those from starts[i] to starts[i + 1] of sequence i, and the
        first used[i] of the tokens that it has room for."""
        room = cache[0].shape[2]
        keys, values = (x[: len(used)].transpose(1, 2).flatten(0, 1) for x in cache)
        begin = torch.arange(len(used) + 1, dtype=torch.int32, device=q.device) * room
        out, mass = self.attend(q, keys, values, starts, begin, widest, room, scale=scale, seqused_k=used.int())
        return out, mass
