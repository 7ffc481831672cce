"""New things come in as files of their own: a policy, an environment, a source of rollouts.

Each stands here alone, touches nothing of cohort, and is trained for two steps. Functions of the axes: see
`test_own_axis_functions.py`.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cohort import registry
from cohort.engine.base import Completion, Sampling, complete
from cohort.environments import EnvironmentFactory, Step
from cohort.methods import Method, use
from cohort.policies.roles import Roles
from cohort.policies.sequences import Sequences
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import RewardSpec
from cohort.rollouts.collect import Collector
from cohort.rollouts.sources import Drawn, RolloutSource, Stateless, Sync
from cohort.training import loop
from cohort.training.batches import Batches
from cohort.training.clock import Clock
from cohort.training.loop import Training, one_step
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.training.trainer import LocalTrainer
from cohort.types import Batch, Prompt, Request, Rollout, Segment, StepInfo
from tests.helpers import tiny_policy

# A policy whose actions are no tokens --------------------------------------------------------------------------------

STATES, MOVES = 4, 3


class Moves(nn.Module):
    """Logits of three moves in each of four states."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(STATES, MOVES))


class BySign:
    """States and moves are written as digits."""

    context_length = None
    stop_ids: frozenset[int] = frozenset()
    special_ids: frozenset[int] = frozenset()
    pieces = None

    def prompt(self, source: Any, system: str | None = None, tools: Sequence[Any] = ()) -> tuple[str, tuple[int, ...]]:
        return str(source), (int(source),)

    def encode(self, text: str, *, start: bool = False) -> tuple[int, ...]:
        return tuple(map(int, text))

    def encode_completion(self, prompt: Prompt | None, text: str, *, end: bool = False) -> tuple[int, ...]:
        return self.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(str, tokens))


class Categorical:
    """A policy over three moves: softmax of the logits of the state that the episode began in."""

    name, halved, vocabulary, pass_tokens = "moves", False, MOVES, 64

    def __init__(self) -> None:
        self.model = Moves()
        self.renderer, self.roles = BySign(), Roles(self.model)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def actions(self, rollouts: Sequence[Rollout]) -> Sequences:
        return self.actions_after([r.request.context for r in rollouts], [r.tokens for r in rollouts])

    def actions_after(self, contexts: Any, tokens: Any, support: Any = ()) -> Sequences:
        pairs = ([torch.tensor(list(each)) for each in part] for part in (contexts, tokens))
        return Sequences(*map(tuple, pairs))

    def log_probs(
        self,
        actions: Sequences,
        *,
        width: int,
        temperature: float = 1.0,
        want: frozenset[str] = frozenset({"logp"}),
        role: str = "policy",
    ) -> dict[str, Tensor]:
        with self.roles.playing(role) as model:
            logp = (model.logits[torch.stack([c[0] for c in actions.context])] / temperature).log_softmax(-1)
        moves = torch.nn.utils.rnn.pad_sequence(list(actions.completion), batch_first=True)
        rows = logp[:, None].expand(-1, moves.shape[1], -1)
        found = {"logp": rows.gather(2, moves[..., None])[..., 0], "entropy": -(rows.exp() * rows).sum(-1)}
        return {name: nn.functional.pad(found[name], (0, width - moves.shape[1])) for name in want}

    def micro_batches(self, actions: Sequences, max_tokens: int) -> list[Tensor]:
        return [torch.arange(len(actions))]

    def trainable(self) -> list[nn.Parameter]:
        return [self.model.logits]

    def first_not_finite(self, actions: Any, role: str = "policy") -> str | None:
        return None

    def save(self, folder: Path) -> None:
        torch.save(self.model.state_dict(), folder / "moves.pt")

    export = save

    def load_weights(self, folder: Path) -> None:
        self.model.load_state_dict(torch.load(folder / "moves.pt", weights_only=True))


class Dice:
    """Draws moves; every rollout has as many as it may."""

    exact = True

    def __init__(self, policy: Categorical) -> None:
        self.policy = policy

    def session(self, sampling: Sampling) -> Any:
        policy = self.policy

        class Session:
            def __init__(self) -> None:
                self.open: list[tuple[int, Request]] = []
                self.count = 0

            @property
            def waiting(self) -> int:
                return len(self.open)

            def submit(self, request: Request) -> int:
                self.open.append((self.count, request))
                self.count += 1
                return self.count - 1

            def forget(self, number: int) -> None: ...

            def end(self) -> None: ...

            def next(self) -> tuple[int, Completion]:
                number, request = self.open.pop(0)
                logp = policy.model.logits.detach()[request.context[0]].log_softmax(-1)
                rng = torch.Generator().manual_seed(request.seed)
                moves = torch.multinomial(logp.exp(), request.max_new_tokens, replacement=True, generator=rng).tolist()
                drawn = [float(logp[move]) for move in moves]
                entropy = [float(-(logp.exp() * logp).sum())] * len(moves)
                return number, Completion(moves, drawn, drawn, entropy, finished=True)

            def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
                return None if stop() else self.next()

            def close(self) -> None: ...

        return Session()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        return complete(self.session(sampling), requests)

    def sync(self) -> None: ...

    def close(self) -> None: ...


def twos(completions: list[str], **_: Any) -> list[float]:
    """The share of moves that are the last one."""
    return [text.count("2") / len(text) for text in completions]


PROMPTS = [
    Prompt(f"state {state}", str(state), (state,), str(state), {"prompt": str(state)}) for state in range(STATES)
]


def training(
    policy: Any,
    method: Method,
    source: Callable[[Batches], RolloutSource],
    *,
    engine: Any,
    updates: int = 1,
    lr: float = 0.5,
) -> Training:
    """Put together by hand what a run's build step puts together from a configuration."""
    progress = Progress(states=method.init(size=len(PROMPTS), steps=2, rows=[prompt.row for prompt in PROMPTS]))
    trained = MasterWeights(policy.trainable(), lambda params: torch.optim.SGD(params, lr))
    trainer = LocalTrainer(policy, trained, progress, engine, 1.0, 64, 1.0)
    rows = {prompt.id: row for row, prompt in enumerate(PROMPTS)}
    batches = Batches(policy, trainer, engine, progress, rows, 1.0)

    def info(step: int) -> StepInfo:
        return StepInfo(step, 2, seed=1, lr=lr, reward_names=("twos",), reward_weights=(1.0,), max_new_tokens=5)

    def clock() -> Clock:
        return Clock(lambda: 0.0, lambda: 0.0)

    return Training(method, source(batches), trainer, batches, progress, info, clock, updates)


def collector(policy: Any, engine: Any, **how: Any) -> Collector:
    """Draws five moves a rollout, rewarded by `twos`."""
    scorer = Scorer([RewardSpec("twos", "twos", function=twos)], process=False)
    return Collector(policy, engine, Sampling(), Grader(scorer, "twos", 0.4, 5), 5, **how)


@pytest.mark.parametrize(
    ("method", "updates"), [("grpo", 1), ("dapo+gdpo", 2), ("rloo", 1), ("disco(threshold=0.4)", 1)]
)
def test_a_policy_whose_actions_are_no_tokens(method: str, updates: int, tmp_path: Path) -> None:
    policy = Categorical()
    policy.roles.make("reference")
    engine, filled = Dice(policy), registry.method(method)
    run = training(
        policy,
        filled,
        lambda batches: Sync(filled, collector(policy, engine), PROMPTS, batches, 4, 16),
        engine=engine,
        updates=updates,
    )
    results = [one_step(run) for _ in range(2)]
    assert [len(result.rollouts) >= 64 for result in results] == [True, True]
    assert all(result.metrics["mismatch_max"] < 1e-5 for result in results)
    # In every state the move that is rewarded has become likelier.
    assert policy.model.logits.softmax(1)[:, 2].min() > 1 / MOVES + 0.01
    run.trainer.save(tmp_path)
    fresh = Categorical()
    fresh.load_weights(tmp_path)
    assert torch.equal(fresh.model.logits, policy.model.logits)


# A source ------------------------------------------------------------------------------------------------------------


class Lectures(Stateless):
    """Rollouts that nobody drew: of each prompt one that is right and one that is not."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.released = 0

    def next(self, info: StepInfo, states: Mapping[str, Any]) -> Drawn:
        self.asked.append(info.step)
        rollouts = [
            Rollout(
                Request(prompt, prompt.tokens, 0, 3),
                (Segment((move,) * 3),),
                components={"twos": reward},
                reward=reward,
                accuracy=reward,
            )
            for prompt in PROMPTS
            for move, reward in ((2, 1.0), (0, 0.0))
        ]
        return Drawn(rollouts, rollouts, states)

    def release(self, rollouts: Sequence[Rollout]) -> None:
        self.released += len(rollouts)


def test_a_source_of_rollouts() -> None:
    policy, source = Categorical(), Lectures()
    run = training(policy, registry.method("rloo(kl_beta=0.0)"), lambda _: source, engine=Dice(policy))
    for _ in range(2):
        result = one_step(run)
        # Nobody drew them, so that there is nothing to compare with.
        assert math.isnan(result.metrics["mismatch"])
    assert source.asked == [0, 1]
    assert source.released == 4 * STATES
    assert policy.model.logits.argmax(1).tolist() == [2] * STATES
    assert policy.model.logits.argmin(1).tolist() == [0] * STATES


# An environment ------------------------------------------------------------------------------------------------------


class HotOrCold:
    """A digit is to be guessed; after each guess it says whether that was too small or too large."""

    def reset(self, row: Mapping[str, Any], seed: int) -> str:
        self.wanted, self.left = random.Random(seed).randrange(8), 3
        return "guess a digit: "

    def step(self, message: Mapping[str, Any]) -> Step:
        guesses = [int(sign) for sign in str(message["content"]) if sign.isdigit()]
        self.left -= 1
        if guesses and guesses[0] == self.wanted:
            return Step(reward=1.0, done=True)
        said = "more" if guesses and guesses[0] < self.wanted else "less"
        return Step(said, reward=-0.1, done=self.left == 0)

    def close(self) -> None: ...


class Guessing(EnvironmentFactory):
    turns = 3

    def make(self, prompt: Prompt, n: int) -> Sequence[Any]:
        return [HotOrCold() for _ in range(n)]


def test_an_environment_of_several_turns() -> None:
    from cohort.engine.native.engine import NativeEngine

    policy = tiny_policy("qwen3")
    engine = NativeEngine(policy)
    method = registry.method("grpo(kl_beta=0.0)")
    grader = Grader(Scorer([], process=False), "", 1.0, 60)
    prompts = [Prompt(f"task {k}", f"task {k}", policy.renderer.encode("task: "), f"task {k}") for k in range(4)]
    draws = Collector(policy, engine, Sampling(), grader, 60, environments=Guessing(grader))
    before = [p.detach().clone() for p in policy.trainable()]
    run = training(policy, method, lambda batches: Sync(method, draws, prompts, batches, 4, 6), engine=engine, lr=0.05)
    for _ in range(2):
        result = one_step(run)
        assert result.batch is not None
        assert max(len(rollout.turns) for rollout in result.rollouts) > 1
        rollout = max(result.rollouts, key=lambda rollout: len(rollout.turns))
        assert {segment.writer for segment in rollout.segments} == {"policy", "environment"}
        # What the environment wrote is read by the model and trained on by nobody.
        place = result.trained.index(result.rollouts.index(rollout))
        pull = result.batch["policy_gradient"][place][: len(rollout.tokens)]
        assert bool((pull[torch.tensor(rollout.mask) == 0] == 0).all())
        assert result.metrics["mismatch_max"] < 1e-3
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.trainable(), strict=True))


# The way from the loop to a method -------------------------------------------------------------------------------------


def test_a_surrogate_is_four_calls_from_the_loop() -> None:
    stack: list[str] = []

    def looking(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
        frame = sys._getframe()
        while frame is not None and frame.f_code is not loop.one_step.__code__:
            stack.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)
            frame = frame.f_back
        return -ratio * advantages

    policy = Categorical()
    method = Method(surrogate=use(looking), name="own")
    engine = Dice(policy)
    run = training(policy, method, lambda b: Sync(method, collector(policy, engine), PROMPTS, b, 4, 4), engine=engine)
    one_step(run)
    assert [name.rpartition(".")[2] for name in reversed(stack)] == ["update", "gradient", "loss", "looking"]
