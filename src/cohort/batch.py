"""The types that every part of cohort speaks: a prompt, a request, a rollout, and a batch of rollouts as tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from cohort.support import Support, joined

Message = dict[str, Any]
# Read as float32.
HALVES = (torch.bfloat16, torch.float16)

# Fields whose shape is known by their name. Any other field says its kind when it is added
# (`with_tokens`, `with_rollouts`), since [N, K] and [N, T] cannot be told apart by shape alone.
TOKEN_FIELDS = frozenset(
    {
        "advantages", "logp", "old_logp", "sampler_logp", "ref_logp", "entropy", "old_entropy", "token_ids",
        "loss_mask", "weight",
    }
)  # fmt: skip
ROLLOUT_FIELDS = frozenset({"group", "rewards", "reward_components", "accuracy", "truncated"})


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
class Prompt:
    """One task of the data set.

    Attributes:
        id: identity of the prompt; rows with the same rendered text have the same id. Group ids come from it.
        text: what the policy is conditioned on, after the chat template.
        tokens: `text` as actions of the policy (token ids).
        source: what reward functions see: the plain text, or the chat messages.
        row: all columns of the data set's row.
        tools: schemas of functions that the chat template is given beside the messages.
        where: what to call that row in messages; empty if it stands in no data set.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    source: str | list[Message]
    row: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()
    where: str = field(default="", compare=False, repr=False)

    @property
    def question(self) -> str:
        """What is asked: the plain text, or the last message of the user."""
        if isinstance(self.source, str):
            return self.source
        asked = [each for each in self.source if each.get("role") == "user"] or self.source
        return str(asked[-1].get("content") or "")


Writer = Literal["policy", "environment", "method"]


@dataclass(frozen=True)
class Segment:
    """A run of a rollout's actions with one author.

    Attributes:
        actions: L token ids.
        writer: "policy": it chose them, and is trained on them; "environment": tool results and observations; "method":
            what a method put in, such as hints and exits.
        logp: L log-probabilities (nats) under the sampling policy, over what each was drawn over; None: they were not drawn in
            this context, so that the trainer must score them where it needs to know.
        entropy: L entropies (nats) of the distributions that they were drawn from; None where they are not known.
        support: what they were drawn over; None for all that the model has.
        version: of the weights that drew them: the number of updates before.
    """

    actions: tuple[int, ...]
    writer: Writer = "policy"
    logp: tuple[float, ...] | None = None
    entropy: tuple[float, ...] | None = None
    support: Support | None = field(default=None, compare=False, repr=False)
    version: int = 0

    def __len__(self) -> int:
        return len(self.actions)

    def cut(self, count: int) -> Segment:
        """The first `count` actions."""
        return replace(
            self,
            actions=self.actions[:count],
            logp=None if self.logp is None else self.logp[:count],
            entropy=None if self.entropy is None else self.entropy[:count],
            support=None if self.support is None else self.support.cut(count),
        )

    def numbers(self, values: tuple[float, ...] | None) -> tuple[float, ...]:
        """`logp` or `entropy` with NaN where the policy's own are not known, 0 where nothing was drawn."""
        if values is not None:
            return values
        return (math.nan if self.writer == "policy" else 0.0,) * len(self)


def head(segments: Iterable[Segment], count: int) -> tuple[Segment, ...]:
    """The segments of the first `count` actions, the last of them cut."""
    out: list[Segment] = []
    for segment in segments:
        if count <= 0:
            break
        out.append(segment if len(segment) <= count else segment.cut(count))
        count -= len(segment)
    return tuple(out)


class Processor(Protocol):
    """What changes the temperature of every next token of a request, by what its distribution is like.

    Requests with equal processors are handled together, so it must be hashable.
    """

    def factor(self, entropy: Tensor) -> Tensor:
        """[B] what the run's temperature is multiplied by, for distributions of the entropies [B] (nats) at it."""
        ...


@dataclass(frozen=True)
class Request:
    """An order to the engine: draw one rollout of `prompt`.

    Attributes:
        prompt: the task, as the reward functions and the group see it.
        context: token ids that the policy is conditioned on (the prompt; with guidance, the dressed prompt).
        seed: the same request with the same seed draws the same tokens.
        max_new_tokens: most tokens to draw in this call.
        history: what already stands there; the engine continues after it.
        meta: what the method that made the request wants to find again at the rollout (exit position, hint level).
        processor: changes the temperature of every token; None draws all at that of the call.
    """

    prompt: Prompt
    context: tuple[int, ...]
    seed: int
    max_new_tokens: int
    history: tuple[Segment, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    processor: Processor | None = None

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """The actions of the history."""
        return tuple(action for segment in self.history for action in segment.actions)


@dataclass(frozen=True)
class Rollout:
    """One completion and what is known of it.

    Attributes:
        request: the order it answers.
        segments: its actions by who wrote them, those of the request's history included.
        finished: True if it ended by a stop token or a stop string, False if it ran into the token limit.
        text: the completion as text, without the stop token, and without a stop string and what follows it.
        components: reward component -> value (None: the component does not apply).
        reward: weighted sum of the components; set by scoring. NaN if it has none: no reward applies to it, or one failed.
        accuracy: 1.0 if the verifier calls it correct, else 0.0; set by scoring. NaN if the verifier does not apply.
        failed: True if a reward function could not score it, and it is to be left out.
        fields: further values by field name, for methods that declare that they need them: a number, or one a token.
        logged: what reward functions logged of it, by column (`log_extra`); set by scoring.
    """

    request: Request
    segments: tuple[Segment, ...]
    finished: bool
    text: str = ""
    components: dict[str, float | None] = field(default_factory=dict)
    reward: float = 0.0
    accuracy: float = 0.0
    failed: bool = False
    fields: dict[str, float | list[float]] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def prompt(self) -> Prompt:
        return self.request.prompt

    @cached_property
    def tokens(self) -> list[int]:
        """L token ids, everything that was inserted included."""
        return [action for segment in self.segments for action in segment.actions]

    @cached_property
    def mask(self) -> list[int]:
        """L times 1 where the policy itself chose the token, 0 where something else wrote it."""
        return [int(segment.writer == "policy") for segment in self.segments for _ in segment.actions]

    @cached_property
    def sampler_logp(self) -> list[float]:
        """L log-probabilities (nats) under the sampling policy; NaN where it did not draw the token in this context."""
        return [value for segment in self.segments for value in segment.numbers(segment.logp)]

    @cached_property
    def sampler_entropy(self) -> list[float]:
        """L entropies (nats) of the distributions sampled from; NaN where they are not known."""
        return [value for segment in self.segments for value in segment.numbers(segment.entropy)]

    @cached_property
    def versions(self) -> list[int]:
        """L versions of the weights that drew the tokens."""
        return [segment.version for segment in self.segments for _ in segment.actions]

    @cached_property
    def support(self) -> Support | None:
        """What its tokens were drawn over; None for all that the model has."""
        return joined([(len(segment), segment.support) for segment in self.segments])

    @property
    def scored(self) -> bool:
        """True if it has a reward: methods see no other rollouts."""
        return not math.isnan(self.reward)

    def but(self, **changes: Any) -> Rollout:
        """A copy with some attributes changed."""
        return replace(self, **changes)

    def head(self, count: int) -> tuple[Segment, ...]:
        """The segments of its first `count` tokens: the history of a request that branches off there."""
        return head(self.segments, count)

    def unscored(self) -> Rollout:
        """The rollout as one that was not drawn in its request's context: to be scored there before it is trained on."""
        return replace(self, segments=tuple(replace(s, logp=None, entropy=None, support=None) for s in self.segments))


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


class Batch:
    """N rollouts with up to T tokens each, as named tensors.

    Token fields are [N, T] (or [N, T, ...]), right padded; rollout fields are [N] (or [N, ...]). Reading a token field
    gives zeros wherever `mask` is 0, whatever was stored there: values at masked positions are arbitrary and can reach
    neither a value nor a gradient. Half precision is read as float32, in which the maths of every loss is done.

    Core fields:
        mask [N, T] bool: True where the policy itself chose the token.
        group [N] int64: label of the prompt; groups may be interleaved and of unequal size.
        rewards [N]; reward_components [N, K], NaN where one does not apply; accuracy [N] (1 correct, 0 not, or not known).
        advantages [N, T]: after the advantage and credit axes.
        logp, old_logp, sampler_logp, ref_logp [N, T]: log-probabilities (nats) of the tokens under the current policy,
            the policy before this step's updates, the engine, and the reference. Only `logp` carries a gradient.
        entropy, old_entropy [N, T]: entropy (nats) of the token distribution, under current and sampling policy.
        token_ids [N, T] int64.
        loss_mask [N, T] bool: tokens that the loss is taken over; `mask` unless a filter or credit function narrows it.

    A batch is never changed in place: `replace`, `with_tokens`, `with_rollouts` and `note` return a new one.
    """

    def __init__(
        self,
        *,
        mask: Tensor,
        tokens: Mapping[str, Tensor] | None = None,
        rollouts: Mapping[str, Tensor] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        if mask.ndim != 2:
            raise ValueError(f"mask must be [N, T], not of shape {tuple(mask.shape)}")
        self.mask = mask.bool()
        self._tokens = dict(tokens or {})
        self._rollouts = dict(rollouts or {})
        self.notes: dict[str, Any] = dict(notes or {})
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
            keep = self.mask.reshape(self.mask.shape + (1,) * (value.ndim - 2))
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
        value = self._tokens[name].flatten(0, 1).index_select(0, places)
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

    def note(self, **notes: Any) -> Batch:
        """A batch with diagnostics noted (numbers or small tensors of any shape, for the log)."""
        return self._like(notes={**self.notes, **notes})

    def _like(
        self,
        *,
        mask: Tensor | None = None,
        tokens: Mapping[str, Tensor] | None = None,
        rollouts: Mapping[str, Tensor] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Batch:
        """A batch with some of its parts replaced; what was read without a gradient and stays need not be cleaned again."""
        made = Batch(
            mask=self.mask if mask is None else mask,
            tokens=self._tokens if tokens is None else tokens,
            rollouts=self._rollouts if rollouts is None else rollouts,
            notes=self.notes if notes is None else notes,
        )
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
            notes=self.notes,
        )

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            mask=self.mask.to(device),
            tokens={k: v.to(device) for k, v in self._tokens.items()},
            rollouts={k: v.to(device) for k, v in self._rollouts.items()},
            notes=self.notes,
        )

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Every field by name, as it reads."""
        for name in self.names:
            yield name, self[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k}{list(v.shape)}" for k, v in {**self._tokens, **self._rollouts}.items())
        return f"Batch(N={self.mask.shape[0]}, T={self.mask.shape[1]}, {shapes})"


def generation_budget(batch: Batch) -> int:
    """The most tokens a rollout of this run may have, which the loop notes on every batch.

    Raises:
        KeyError: the batch comes from elsewhere; give the method its `max_tokens` or `max_len`.
    """
    if "max_new_tokens" not in batch.notes:
        raise KeyError("the batch does not say how long a rollout may be: set the method's max_tokens or max_len")
    return int(batch.notes["max_new_tokens"])
