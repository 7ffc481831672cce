"""A policy without text or transformers: three moves, and a table of logits by what was seen last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cohort import registry
from cohort.errors import Diverged
from cohort.policies.passes import log_probs
from cohort.policies.roles import Roles
from cohort.rollouts.batching import make_batch
from cohort.training.build import make_roles
from cohort.training.update import gradient
from cohort.types import Message, Prompt, Request, Rollout, Segment
from cohort.types.policy import Layered, Policy
from cohort.types.support import Support

MOVES = ("rock", "paper", "scissors")


@dataclass(frozen=True)
class Played:
    """Rows of moves, each behind the move that its context ends with."""

    contexts: tuple[Tensor, ...]
    moves: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.moves)

    def select(self, rows: Tensor) -> Played:
        picked = rows.tolist()
        return Played(tuple(self.contexts[i] for i in picked), tuple(self.moves[i] for i in picked))

    def in_contexts(self, contexts: Sequence[Tensor]) -> Played:
        return replace(self, contexts=tuple(contexts))

    def __add__(self, other: Played) -> Played:
        return Played(self.contexts + other.contexts, self.moves + other.moves)


class Names:
    """A renderer: moves by their names."""

    context_length: int | None = None
    stop_ids: frozenset[int] = frozenset()
    special_ids: frozenset[int] = frozenset()
    pieces: Callable[[Sequence[int]], list[str]] | None = None

    def prompt(
        self, source: str | list[Message], system: str | None = None, tools: Sequence[Any] = ()
    ) -> tuple[str, tuple[int, ...]]:
        assert isinstance(source, str)
        return source, self.encode(source)

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        return tuple(MOVES.index(word) for word in text.split())

    def encode_completion(self, prompt: Prompt | None, text: str, *, end: bool = False) -> tuple[int, ...]:
        return self.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(MOVES[token] for token in tokens)


class Table(nn.Module):
    """Logits [3, 3] of the next move by the last one, and a value of each."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-0.5, 0.5, 9).reshape(3, 3))


class Values(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(3))


class Categorical:
    """A policy of three moves."""

    name = "a table of moves"
    vocabulary = 3
    pass_tokens = 1024
    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.renderer = Names()
        self.roles = Roles(Table(), critic=lambda kind: Values())
        self.halved = False

    @property
    def model(self) -> nn.Module:
        return self.roles.models["policy"]

    def actions(self, rollouts: Sequence[Rollout]) -> Played:
        return self.actions_after([r.request.context for r in rollouts], [r.tokens for r in rollouts])

    def actions_after(
        self, contexts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], support: Sequence[Support | None] = ()
    ) -> Played:
        return Played(tuple(torch.tensor([*c]) for c in contexts), tuple(torch.tensor([*t]).long() for t in tokens))

    def log_probs(
        self,
        actions: Any,
        *,
        width: int,
        temperature: float = 1.0,
        want: frozenset[str] = frozenset({"logp"}),
        role: str = "policy",
    ) -> dict[str, Tensor]:
        with self.roles.playing(role) as table:
            rows: dict[str, list[Tensor]] = {name: [] for name in want}
            for context, moves in zip(actions.contexts, actions.moves, strict=True):
                last = torch.cat([context[-1:], moves])[:-1] if len(moves) else moves
                logits = (table.logits / temperature)[last]
                over = logits.log_softmax(-1)
                found = {"logits": logits, "logp": over.gather(1, moves[:, None])[:, 0]}
                found["entropy"] = -(over.exp() * over).sum(-1)
                if "values" in want:
                    with self.roles.playing("critic") as critic:
                        found["values"] = critic.values[last]
                for name in want:
                    short = found[name].new_zeros(width - len(moves), *found[name].shape[1:])
                    rows[name].append(torch.cat([found[name], short]))
        return {name: torch.stack(values) for name, values in rows.items()}

    def micro_batches(self, actions: Any, max_tokens: int) -> list[Tensor]:
        size = max(1, max_tokens // max(len(moves) + 1 for moves in actions.moves))
        return list(torch.arange(len(actions)).split(size))

    def trainable(self) -> list[nn.Parameter]:
        return [*self.model.parameters()]

    def first_not_finite(self, actions: Any, role: str = "policy") -> str | None:
        with self.roles.playing(role) as table:
            return None if bool(table.logits.isfinite().all()) else "the table"

    def save(self, folder: Path) -> None:
        torch.save(self.model.state_dict(), folder)

    def export(self, folder: Path) -> None:
        self.save(folder)

    def load_weights(self, folder: Path) -> None:
        self.model.load_state_dict(torch.load(folder, weights_only=True))


def drawn(policy: Categorical, seed: int = 0) -> list[Rollout]:
    """Two groups of four rollouts of up to five moves; more wins against rock are rewarded more."""
    rng, out = torch.Generator().manual_seed(seed), []
    for group in ("rock paper", "scissors"):
        text, context = policy.renderer.prompt(group)
        for k in range(4):
            moves = torch.randint(3, (2 + k,), generator=rng).tolist()
            logp = policy.log_probs(policy.actions_after([context], [moves]), width=len(moves))["logp"][0].tolist()
            request = Request(Prompt(text, text, context, group), context, k, 5)
            segment = Segment(tuple(moves), logp=tuple(logp), entropy=(1.0,) * len(moves))
            reward = float(moves.count(1)) / len(moves)
            out.append(Rollout(request, (segment,), components={"wins": reward}, reward=reward))
    return out


@pytest.mark.parametrize("name", ["grpo(kl_beta=0.1)", "gspo", "grpo-care", "disco(threshold=0.4)", "ppo(kl_beta=0.0)"])
def test_a_table_of_moves_is_trained_as_a_language_model_is(name: str) -> None:
    """One pass over everything and one a rollout give the same gradient, and a step along it raises the objective."""
    method, results = registry.method(name), []
    for micro_tokens in (1000, 1):
        made = Categorical()
        policy: Policy = made
        make_roles(policy, method, seed=0)
        rollouts = drawn(made)
        batch = make_batch(rollouts, {}).replace(old_logp=make_batch(rollouts, {})["sampler_logp"])
        actions, how = policy.actions(rollouts), {"width": batch.mask.shape[1], "temperature": 1.0, "micro_tokens": 4}
        needs = method.needs(loss=True) | method.needs(loss=False)
        if "ref_logp" in needs:
            batch = batch.replace(ref_logp=log_probs(policy, actions, role="reference", **how)["logp"])  # type: ignore[arg-type]
        if "old_values" in needs:
            found = log_probs(policy, actions, want=frozenset({"values"}), **how)  # type: ignore[arg-type]
            batch = batch.with_tokens(old_values=found["values"])
        if name == "grpo-care":
            batch = batch.with_tokens(ema_ref_logp=batch.old_logp, answer_mask=batch.mask)
        states = method.init(size=2)
        batch = method.bind(states).prepare(batch).batch

        def step(
            micro: int, policy: Policy = policy, batch: Any = batch, actions: Any = actions, states: Any = states
        ) -> Any:
            bound = method.bind(states)
            done = gradient(policy, bound, batch, actions, temperature=1.0, micro_tokens=micro, on_policy=False)
            grads = [p.grad for p in policy.trainable()]
            assert all(grad is not None for grad in grads)
            return done, [grad.clone() for grad in grads if grad is not None]

        done, grads = step(micro_tokens)
        results.append((done.loss, grads))
    (whole, grads), (parts, again) = results
    assert whole == pytest.approx(parts, abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(grads, again, strict=True))
    assert any(bool(grad.any()) for grad in grads)
    with torch.no_grad():
        for p, grad in zip(policy.trainable(), grads, strict=True):
            p.sub_(0.05 * grad)
            p.grad = None
    policy.roles.move(1)
    assert step(1000)[0].loss < whole


def test_its_numbers_that_are_no_numbers_are_named() -> None:
    policy = Categorical()
    with torch.no_grad():
        policy.model.logits.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(Diverged, match="is the table"):
        log_probs(policy, policy.actions_after([(0,)], [(1, 2)]), width=2, temperature=1.0, micro_tokens=10)


def test_it_has_no_layers_to_look_into() -> None:
    assert not isinstance(Categorical(), Layered)
