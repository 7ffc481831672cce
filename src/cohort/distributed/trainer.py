"""The trainer of many ranks: the driver tells the others each operation, and all do it together.

Every rank holds the small batch and computes the method's functions on it alike. Only passes are dealt: each rank makes those
over its rows. What they give is gathered where it is needed, and gradients are added up.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.devices import to_device, to_host
from cohort.distributed.dealing import deal, lengths_of
from cohort.distributed.failing import Agreed, Failure, RankLost, given_up, raise_first
from cohort.distributed.share import OtherFailed, RankShare
from cohort.distributed.storing import sees
from cohort.distributed.watch import Watch
from cohort.distributed.weights import Weights
from cohort.distributed.world import World
from cohort.engine.base import Engine
from cohort.errors import UsageError
from cohort.methods import BoundMethod, Method
from cohort.methods.axis import LOSS_AXES
from cohort.methods.stage import parameters
from cohort.policies.passes import attempts, check_scores, log_probs, log_probs_of_parts
from cohort.training.folder import LOCK
from cohort.training.interrupt import signals_deferred
from cohort.training.progress import Progress
from cohort.training.trainer import trust
from cohort.training.update import Gradient
from cohort.types import Batch, StepInfo
from cohort.types.declare import State
from cohort.types.policy import Actions


@dataclass
class Done:
    """What a rank tells of its part of an update.

    Attributes:
        failure: it has failed.
        seconds: that its passes took; passes: their number; tokens: of its rows.
        found: see `Weights.made`.
    """

    failure: Failure | None = None
    loss: float = 0.0
    policy: float = 0.0
    regularizers: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    passes: int = 0
    tokens: int = 0
    found: bytes = b""


@dataclass
class Rank:
    """What all ranks do alike, each with its part; the driver calls it after it has told the others to."""

    world: World
    weights: Weights
    method: Method
    temperature: float
    micro_tokens: int
    grad_clip: float

    def begin(self, lr: float | None) -> None:
        """See `Trainer.begin`."""
        if lr is not None:
            self.weights.set_lr(lr)

    def _dealt(self, actions: Actions) -> tuple[list[Tensor], list[int]]:
        """Rows of each share, and tokens of each row."""
        lengths = lengths_of(actions)
        return deal(lengths, self.world.data_size), lengths

    def log_probs(
        self, actions: Actions, want: frozenset[str], width: int, role: str, temperature: float | None
    ) -> dict[str, Tensor]:
        """See `Trainer.log_probs`; of the driver. Others get nothing."""
        shares, _ = self._dealt(actions)
        rows = shares[self.world.data_rank]
        found: Any = {}
        own: Exception | None = None
        mine, weights = actions.select(rows), self.weights
        missing, parts = 0, []
        if weights.lockstep:
            parts = weights.policy.micro_batches(mine, self.micro_tokens)
            missing = self.world.most(len(parts)) - len(parts)
        weights.ready(role, want)
        try:
            how: dict[str, Any] = {"width": width, "want": want, "role": role}
            how["temperature"] = self.temperature if temperature is None else temperature
            if len(rows) and weights.lockstep:
                found = log_probs_of_parts(weights.policy, mine, parts, **how)
                check_scores(weights.policy, mine, found, role)
            elif len(rows):
                found = log_probs(weights.policy, mine, micro_tokens=self.micro_tokens, **how)
            weights.idle(missing, role, want)
        except Exception as error:
            if weights.lockstep:
                raise given_up(self.world.rank, error, weights.policy.halved) from error
            own, found = error, Failure.of(self.world.rank, error)
        finally:
            weights.rest()
        if not self.world.driver:
            found = dict(zip(found, to_host(*found.values()), strict=True)) if isinstance(found, dict) else found
            self.world.collect(found if self.world.speaks or isinstance(found, Failure) else {})
            return {}
        given = self.world.collect({})
        assert given is not None
        raise_first(given, own)
        return self._put_together(len(actions), shares, [found, *given[1:]])

    def _put_together(self, count: int, shares: Sequence[Tensor], given: Sequence[Any]) -> dict[str, Tensor]:
        """Fields of all rows [count, ...] from what each rank has of its share: wide ones where this rank has its own."""
        out: dict[str, Tensor] = {}
        for rank, fields in enumerate(given):
            rows = shares[rank // self.world.tensor]
            for name, value in fields.items() if rank % self.world.tensor == 0 else ():
                device = self.weights.policy.device if value.ndim > 2 else "cpu"
                whole = out.setdefault(name, torch.zeros(count, *value.shape[1:], dtype=value.dtype, device=device))
                whole[to_device(rows, device)] = to_device(value, device)
        return out

    def update(
        self, states: Mapping[str, State], info: StepInfo, batch: Batch, actions: Actions, on_policy: bool, updates: int
    ) -> tuple[Gradient, float, list[Done]]:
        """See `Trainer.update`: the gradient, its norm, and what each rank tells.

        Args:
            updates: that were made before.

        Raises:
            Exception: a rank failed; nothing was updated.
        """
        weights, world, policy = self.weights, self.world, self.weights.policy
        couples = self.method.couples
        shares, lengths = self._dealt(actions)
        rows = shares[world.data_rank]
        share = RankShare(world, rows, weights.lockstep, policy.device)
        made, own, told = Gradient(), None, Done(tokens=sum(lengths[row] for row in rows.tolist()))
        began = time.perf_counter()
        weights.ready_to_update()
        try:
            # Where others wait for these passes, none can be made again.
            for attempt in [contextlib.nullcontext()] if weights.lockstep else attempts(policy):
                with attempt:
                    made, told.found = weights.made(
                        self.method.bind(states, info),
                        batch,
                        actions,
                        temperature=self.temperature,
                        micro_tokens=self.micro_tokens,
                        on_policy=on_policy,
                        share=share,
                    )
        except Exception as error:
            if weights.lockstep:
                raise given_up(world.rank, error, policy.halved) from error
            share.failed(couples)
            if not isinstance(error, OtherFailed):
                own, told.failure = error, Failure.of(world.rank, error)
        told.seconds, told.passes = time.perf_counter() - began, share.passes
        told.loss, told.policy, told.regularizers = made.loss, made.policy, made.regularizers
        everyone = world.exchange(told)
        failures = [each.failure for each in everyone if each.failure is not None]
        if failures:
            weights.drop()
            if world.driver:
                raise_first(failures, own)
            return made, math.nan, everyone
        speaking = everyone[:1] if couples else everyone[:: world.tensor]
        whole = Gradient(loss=sum(each.loss for each in speaking), policy=sum(each.policy for each in speaking))
        for each in speaking:
            for name, value in each.regularizers.items():
                whole.regularizers[name] = whole.regularizers.get(name, 0.0) + value
        weights.reduce([each.found for each in everyone[:: world.tensor]])
        norm = weights.clip(self.grad_clip)
        if math.isfinite(norm) and math.isfinite(whole.loss):
            weights.step(updates + 1)
        weights.drop()
        whole.fields = made.fields
        if not couples:
            mine = {name: value[rows] for name, value in made.fields.items()}
            if not world.driver:
                world.collect(mine if world.speaks else {})
            else:
                given = world.collect({})
                assert given is not None
                whole.fields = self._put_together(len(actions), shares, [mine, *given[1:]])
        return whole, norm, everyone

    def publish(self) -> None:
        """See Weights."""
        self.weights.publish()
        self._settled()

    def _settled(self) -> None:
        """All ranks have the weights that they are to have: threads of theirs draw as soon as the driver says so."""
        self.world.agree(False)

    def reaches(self, folder: Path, claim: str) -> None:
        """See `Trainer.reaches`.

        Args:
            claim: what the driver wrote into the folder's lock.
        """
        found = self.world.exchange((socket.gethostname(), sees(folder, claim)))
        blind = [f"rank {rank} on {host}" for rank, (host, seen) in enumerate(found) if not seen]
        if blind and self.world.driver:
            raise Agreed(
                UsageError(
                    f"{folder} is not what these processes find there: {', '.join(blind[:4])}. All of them write checkpoints "
                    "into it: name a folder with --out on a file system that all machines share"
                )
            )

    def save(self, folder: Path) -> Future[Any] | None:
        """See Weights."""
        return self.weights.save(folder)

    def state_dict(self) -> dict[str, Any]:
        """See Weights."""
        return self.weights.state_dict()

    def load(self, folder: Path, state: Mapping[str, Any] | None = None) -> None:
        """See Weights."""
        self.weights.load(folder, state)
        self._settled()

    def hold(self) -> None:
        """See Weights."""
        self.weights.hold()

    def restore(self) -> None:
        """See Weights."""
        self.weights.restore()
        self._settled()

    def finite(self) -> bool:
        """See Weights."""
        return self.weights.finite()


@dataclass
class RankedTrainer:
    """The trainer of many ranks, in the driver; see `cohort.training.trainer.Trainer`.

    Attributes:
        rank: does this process's part.
        watch: knows when another process has ended.
        engine: that rollouts are drawn with.
    """

    rank: Rank
    watch: Watch
    progress: Progress
    engine: Engine
    done: list[Gradient] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    told: list[list[Done]] = field(default_factory=list)

    def _all(self, what: str, *given: Any, here: tuple[Any, ...] | None = None) -> Any:
        """Have every rank do something.

        Args:
            here: what is given in this process, where that is another.

        Raises:
            RankLost: a process has ended.
        """
        self.watch.check()
        with signals_deferred():
            self.watch.broken = True
            try:
                self.watch.tell((what, given))
                found = getattr(self.rank, what)(*(given if here is None else here))
            except Agreed as failed:
                self.watch.broken = False
                raise failed.error from None
            except RankLost:
                raise
            except RuntimeError as error:
                raise self.watch.explain(error) from error
            self.watch.broken = False
            return found

    @property
    def version(self) -> int:
        return self.progress.updates

    def begin(self, lr: float | None) -> None:
        """See Trainer."""
        self._all("begin", lr)
        self.done, self.norms, self.told = [], [], []

    def log_probs(
        self,
        actions: Actions,
        want: frozenset[str] = frozenset({"logp"}),
        *,
        width: int,
        role: str = "policy",
        temperature: float | None = None,
    ) -> dict[str, Tensor]:
        """See Trainer."""
        found: dict[str, Tensor] = self._all("log_probs", actions, want, width, role, temperature)
        return found

    def update(self, method: BoundMethod, batch: Batch, actions: Actions, *, on_policy: bool) -> Gradient:
        """See Trainer."""
        progress = self.progress
        made: tuple[Gradient, float, list[Done]] = self._all(
            "update", read_by_loss(method), method.info, batch, actions, on_policy, progress.updates
        )
        done, norm, told = made
        done.version = self.version
        progress.count(finite=math.isfinite(norm) and math.isfinite(done.loss), tokens=int(batch.mask.sum()))
        self.done.append(done)
        self.norms.append(norm)
        self.told.append(told)
        return done

    def trust(self, mismatch: tuple[float, float] | None) -> None:
        """See Trainer."""
        trust(self.engine, self.progress, self.rank.weights.policy.dtype, mismatch)

    def publish(self) -> None:
        """See Trainer."""
        self._all("publish")
        self.engine.sync()

    def reaches(self, folder: Path) -> None:
        """See Trainer."""
        self._all("reaches", folder.absolute(), (folder / LOCK).read_text(encoding="utf-8"))

    def save(self, folder: Path) -> Future[Any] | None:
        """See Trainer."""
        written: Future[Any] | None = self._all("save", folder.absolute())
        return written

    def state_dict(self) -> dict[str, Any]:
        """See Trainer."""
        found: dict[str, Any] = self._all("state_dict")
        return found

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """See Trainer. Other ranks read the checkpoint themselves."""
        self._all("load", folder.absolute(), here=(folder, state))

    def hold(self) -> None:
        """See Trainer."""
        self._all("hold")

    @property
    def restorable(self) -> bool:
        """See Trainer."""
        return self.rank.weights.restorable

    def restore(self) -> None:
        """See Trainer."""
        self._all("restore")

    def finite(self) -> bool:
        """See Trainer."""
        found: bool = self._all("finite")
        return found

    def metrics(self) -> dict[str, float]:
        """See Trainer: how evenly the ranks worked."""
        world = self.rank.world
        if world.size == 1:
            return {}
        out: dict[str, float] = {"ranks/size": world.size}
        if self.told:
            tokens = [sum(ranks[i].tokens for ranks in self.told) for i in range(0, world.size, world.tensor)]
            longest = sum(max(each.seconds for each in ranks) for ranks in self.told)
            spent = sum(each.seconds for ranks in self.told for each in ranks) / world.size
            out["ranks/passes_max"] = max(each.passes for ranks in self.told for each in ranks)
            out["ranks/imbalance"] = max(tokens) * len(tokens) / max(1, sum(tokens))
            out["ranks/idle"] = 1.0 - spent / max(longest, 1e-9)
        return out


def read_by_loss(method: BoundMethod) -> dict[str, State]:
    """The states that the loss reads, by key; others may be large, and stay with the driver."""
    keys = {key for key, axis, stage in method.method.keyed if axis in LOSS_AXES and "state" in parameters(stage.fn)}
    return {key: state for key, state in method.states.items() if key in keys}
