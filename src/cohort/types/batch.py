"""A batch of rollouts as tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cohort.devices import to_device, to_host

# Read as float32.
HALVES = (torch.bfloat16, torch.float16)

# Fields whose shape is known by their name. Any other field says its kind when it is added
# (`with_tokens`, `with_rollouts`), since [N, K] and [N, T] cannot be told apart by shape alone.
TOKEN_FIELDS = frozenset(
    {
        "advantages",
        "logp",
        "old_logp",
        "sampler_logp",
        "ref_logp",
        "entropy",
        "old_entropy",
        "token_ids",
        "loss_mask",
        "weight",
    }
)
ROLLOUT_FIELDS = frozenset({"group", "rewards", "reward_components", "accuracy", "truncated"})


def label_of(name: str) -> int:
    """The label of a name, such as an agent's: the same in every batch; 0 for no name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") if name else 0


class MissingField(KeyError):
    """A method asked for a field that the batch does not hold."""

    def __init__(self, name: str, held: Sequence[str]) -> None:
        super().__init__(name)
        self.name, self.held = name, tuple(held)

    def __str__(self) -> str:
        return (
            f"the batch has no field '{self.name}' (it holds: {', '.join(sorted(self.held))}); a method that reads it "
            f"must declare it with @needs('{self.name}'), so that the loop provides it"
        )


@dataclass(frozen=True)
class Groups:
    """Which rollout belongs to which group, with labels made compact.

    Attributes:
        index: [N] int64, group of each rollout as 0 .. P-1, in order of first appearance.
        labels: [P] int64, the original label of each group.
    """

    index: Tensor
    labels: Tensor

    @property
    def count(self) -> int:
        """P, the number of groups."""
        return self.labels.numel()

    @cached_property
    def size(self) -> Tensor:
        """[P] int64, rollouts of each group."""
        return torch.bincount(self.index, minlength=self.count)

    @cached_property
    def largest(self) -> int:
        """Rollouts of the largest group; 0 without groups."""
        return int(self.size.max()) if self.count else 0

    def to(self, device: torch.device | str) -> Groups:
        """The same on a device, with what would have to be read from it to be known."""
        made = Groups(to_device(self.index, device), to_device(self.labels, device))
        vars(made).update(size=to_device(self.size, device), largest=self.largest)
        return made


class Batch:
    """N rollouts with up to T tokens each, as named tensors.

    Token fields are [N, T] (or [N, T, ...]), right padded; rollout fields are [N] (or [N, ...]). Reading a token field
    gives zeros wherever `mask` is 0, whatever was stored there: values at masked positions are arbitrary and can reach
    neither a value nor a gradient. Half precision is read as float32, in which the maths of every loss is done.

    Core fields:
        mask [N, T] bool: True where the policy itself chose the token.
        group [N] int64: label of the prompt and the agent; groups may be interleaved and of unequal size.
        agent [N] int64: label of the agent that spoke (`label_of`); 0 where there is one without a name.
        episode [N] int64: label of the episode that a row belongs to, each of a row of its own where that is not said.
        rewards [N]; reward_components [N, K], NaN where one does not apply; accuracy [N] (1 correct, 0 not, or not known).
        advantages [N, T]: after the advantage and credit axes.
        logp, old_logp, sampler_logp, ref_logp [N, T]: log-probabilities (nats) of the tokens under the current policy,
            the policy before this step's updates, the engine, and the reference. Only `logp` carries a gradient.
        entropy, old_entropy [N, T]: entropy (nats) of the token distribution, under current and sampling policy.
        token_ids [N, T] int64.
        turn [N, T] int64: number of the turn that a token stands in, from 0.
        turn_rewards [N, T]: what the environment gave a turn, at its last token; 0 elsewhere.
        loss_mask [N, T] bool: tokens that the loss is taken over; `mask` unless a filter or credit function narrows it.

    A batch is never changed in place: `replace`, `with_tokens` and `with_rollouts` return a new one. In a run it lies in the
    processor's memory, and its minibatches on the policy's device while their loss is taken; wide fields [N, T, ...] may be
    on the device before that.
    """

    def __init__(
        self, *, mask: Tensor, tokens: Mapping[str, Tensor] | None = None, rollouts: Mapping[str, Tensor] | None = None
    ) -> None:
        if mask.ndim != 2:
            raise ValueError(f"mask must be [N, T], not of shape {tuple(mask.shape)}")
        self.mask = mask.bool()
        self._tokens = dict(tokens or {})
        self._rollouts = dict(rollouts or {})
        self._clean: dict[str, Tensor] = {}
        for name, value in self._tokens.items():
            if value.shape[:2] != mask.shape:
                raise ValueError(f"token field '{name}' is {tuple(value.shape)}, but the mask is {tuple(mask.shape)}")
        for name, value in self._rollouts.items():
            if value.shape[:1] != mask.shape[:1]:
                raise ValueError(f"rollout field '{name}' has {tuple(value.shape)[:1]} rows, the mask {mask.shape[0]}")

    @classmethod
    def of(cls, mask: Tensor, **fields: Tensor) -> Batch:
        """A batch from core fields by name (see the class for their shapes)."""
        unknown = set(fields) - TOKEN_FIELDS - ROLLOUT_FIELDS
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no core fields; add them with with_tokens or with_rollouts")
        return cls(
            mask=mask,
            tokens={k: v for k, v in fields.items() if k in TOKEN_FIELDS},
            rollouts={k: v for k, v in fields.items() if k in ROLLOUT_FIELDS},
        )

    # reading -------------------------------------------------------------------------------------------------------

    def __contains__(self, name: str) -> bool:
        return name in self._tokens or name in self._rollouts

    def __getitem__(self, name: str) -> Tensor:
        if name in self._clean:
            return self._clean[name]
        if name in self._tokens:
            value = self._tokens[name]
            keep = to_device(self.mask, value.device).reshape(self.mask.shape + (1,) * (value.ndim - 2))
            value = torch.where(keep, value, torch.zeros((), dtype=value.dtype, device=value.device))
        elif name in self._rollouts:
            value = self._rollouts[name]
        else:
            raise MissingField(name, self.names)
        if value.dtype in HALVES:
            value = value.float()
        self._clean[name] = value
        return value

    def stored(self, name: str) -> Tensor:
        """A field as it was given, also where the mask is 0: token ids that a model is to read again, for example."""
        return self._tokens[name] if name in self._tokens else self._rollouts[name]

    def picked(self, name: str, places: Tensor) -> Tensor:
        """[M, ...] a token field at `places` [M] int64 of the flattened [N T], all of them within the mask: a wide field is
        not copied as a whole for a part of it."""
        value = self._tokens[name]
        value = value.flatten(0, 1).index_select(0, to_device(places, value.device))
        return value.float() if value.dtype in HALVES else value

    def get(self, name: str) -> Tensor | None:
        return self[name] if name in self else None

    @property
    def names(self) -> tuple[str, ...]:
        return (*self._tokens, *self._rollouts)

    @property
    def token_names(self) -> tuple[str, ...]:
        return tuple(self._tokens)

    @property
    def size(self) -> int:
        """N, the number of rollouts."""
        return self.mask.shape[0]

    @property
    def device(self) -> torch.device:
        return self.mask.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the rewards or log-probabilities: float32 in training, float64 in tests."""
        for name in ("rewards", "logp", "old_logp", "advantages"):
            if name in self:
                dtype = self[name].dtype
                if dtype.is_floating_point:
                    return dtype
        return torch.get_default_dtype()

    @property
    def group(self) -> Tensor:
        return self["group"]

    @property
    def episode(self) -> Tensor:
        return self["episode"] if "episode" in self else torch.arange(self.size, device=self.device)

    @property
    def agent(self) -> Tensor:
        return self["agent"] if "agent" in self else torch.zeros(self.size, dtype=torch.int64, device=self.device)

    @property
    def rewards(self) -> Tensor:
        return self["rewards"]

    @property
    def advantages(self) -> Tensor:
        return self["advantages"]

    @property
    def logp(self) -> Tensor:
        return self["logp"]

    @property
    def old_logp(self) -> Tensor:
        return self["old_logp"]

    @property
    def ref_logp(self) -> Tensor:
        return self["ref_logp"]

    @property
    def loss_mask(self) -> Tensor:
        """[N, T] bool: tokens that the loss is taken over."""
        narrowed = self.get("loss_mask")
        return self.mask if narrowed is None else narrowed

    @cached_property
    def lengths(self) -> Tensor:
        """[N] length of each rollout in tokens: the field `length` if there is one, else the tokens with mask 1."""
        length = self.get("length")
        return (self.mask.sum(1) if length is None else length).to(self.dtype)

    @cached_property
    def groups(self) -> Groups:
        labels, index = torch.unique(self.group, return_inverse=True)
        first = torch.full_like(labels, self.size).scatter_reduce(
            0, index, torch.arange(self.size, device=self.device, dtype=labels.dtype), "amin"
        )
        order = torch.argsort(first)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(order.numel(), device=self.device)
        return Groups(rank[index], labels[order])

    # making new ones -----------------------------------------------------------------------------------------------

    def replace(self, **fields: Tensor) -> Batch:
        """A batch with fields changed or core fields added."""
        tokens, rollouts, mask = dict(self._tokens), dict(self._rollouts), self.mask
        for name, value in fields.items():
            if name == "mask":
                mask = value
            elif name in self._tokens or (name not in self._rollouts and name in TOKEN_FIELDS):
                tokens[name] = value
            elif name in self._rollouts or name in ROLLOUT_FIELDS:
                rollouts[name] = value
            else:
                raise ValueError(f"'{name}' is no core field: add it with with_tokens or with_rollouts")
        return self._like(mask=mask, tokens=tokens, rollouts=rollouts)

    def with_tokens(self, **fields: Tensor) -> Batch:
        """A batch with [N, T, ...] fields added."""
        return self._like(tokens={**self._tokens, **fields})

    def with_rollouts(self, **fields: Tensor) -> Batch:
        """A batch with [N, ...] fields added."""
        return self._like(rollouts={**self._rollouts, **fields})

    def _like(
        self,
        *,
        mask: Tensor | None = None,
        tokens: Mapping[str, Tensor] | None = None,
        rollouts: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """A batch with some of its parts replaced; what was read without a gradient and stays need not be cleaned again."""
        made = Batch(
            mask=self.mask if mask is None else mask,
            tokens=self._tokens if tokens is None else tokens,
            rollouts=self._rollouts if rollouts is None else rollouts,
        )
        if "groups" in vars(self) and made.stored("group") is self.stored("group"):
            vars(made)["groups"] = self.groups
        if mask is None or mask is self.mask:
            for name, value in self._clean.items():
                kept = made.stored(name) is self.stored(name) if name in made else False
                if kept and not self.stored(name).requires_grad:
                    made._clean[name] = value
        return made

    def select(self, rows: Tensor) -> Batch:
        """The rollouts at `rows` ([n] int64 indices, or [N] bool), in that order."""
        everything = torch.arange(self.size, device=rows.device)
        if rows.shape == everything.shape and bool((rows if rows.dtype == torch.bool else rows == everything).all()):
            return self  # wide fields are not copied for nothing
        return Batch(
            mask=self.mask[rows],
            tokens={k: v[rows] for k, v in self._tokens.items()},
            rollouts={k: v[rows] for k, v in self._rollouts.items()},
        )

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device. Its groups go along, since finding them there would have the host wait."""
        device, held = torch.device(device), [self.mask, *self._tokens.values(), *self._rollouts.values()]
        if all(value.device == device for value in held):
            return self
        if device.type == "cpu":
            mask, *values = to_host(*held)
            groups = None
        else:
            mask, *values = (to_device(value, device) for value in held)
            groups = self.groups.to(device) if "group" in self else None
        tokens = dict(zip(self._tokens, values, strict=False))
        made = Batch(mask=mask, tokens=tokens, rollouts=dict(zip(self._rollouts, values[len(tokens) :], strict=True)))
        if groups is not None:
            vars(made)["groups"] = groups
        return made

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Every field by name, as it reads."""
        for name in self.names:
            yield name, self[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k}{list(v.shape)}" for k, v in {**self._tokens, **self._rollouts}.items())
        return f"Batch(N={self.mask.shape[0]}, T={self.mask.shape[1]}, {shapes})"
