"""The part of an update that a rank makes, and what it has of the others'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cohort.devices import to_device
from cohort.distributed.world import World


class OtherFailed(RuntimeError):
    """Another rank has failed, so that nothing comes of what was begun together; that rank says why."""


@dataclass
class RankShare:
    """See `cohort.training.update.Share`."""

    world: World
    rows: Tensor
    lockstep: bool
    device: torch.device
    passes: int = 0
    gathered: dict[str, Tensor] | None = None
    over: bool = False

    def gather(self, own: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """See Share. Asked again after memory ran out, it gives what it gave: the others do not come a second time.

        Raises:
            OtherFailed: another rank failed on the way here.
        """
        if self.gathered is None:
            self.over = True
            given = self.world.exchange({name: (value.shape[1:], value.dtype) for name, value in own.items()})
            if any(each is None for each in given):
                raise OtherFailed("another rank failed")
            known: dict[str, Any] = {name: what for each in given for name, what in each.items()}
            gathered = {}
            for name in sorted(known):
                shape, dtype = known[name]
                # Not on a GPU, but for wide ones: its memory may run out, and the others would wait for this rank's part.
                whole = torch.zeros(count, *shape, dtype=dtype, device=self.device if len(shape) > 1 else "cpu")
                if name in own and self.world.speaks:
                    whole[to_device(self.rows, whole.device)] = own[name].to(whole.device)
                gathered[name] = self.world.sum(whole)
            self.gathered = gathered
        return {name: value.to(self.device, copy=True) for name, value in self.gathered.items()}

    def missing(self, passes: int) -> int:
        """See Share."""
        self.passes = passes
        return self.world.most(passes) - passes if self.lockstep else 0

    def failed(self, couples: bool) -> None:
        """This rank has failed: if the others wait to gather, they are told."""
        if couples and not self.over:
            self.over = True
            self.world.exchange(None)
