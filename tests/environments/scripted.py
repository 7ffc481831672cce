"""An engine that draws what a test says, and files with tools and environments of users."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cohort.data.prompts import PromptSpec, load_prompts
from cohort.engine.base import Completion, Sampling
from cohort.environments.apart import Apart
from cohort.environments.factory import EnvironmentFactory
from cohort.environments.pool import Pool
from cohort.environments.spec import Maker, Offer, parse
from cohort.policies.causal_lm import CausalLM
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse as parse_rewards
from cohort.rollouts.runner import Runner
from cohort.types import Prompt, Request, Rollout
from tests.helpers import request_of

# What the policy says in its turns.
Says = Callable[[Request, int], str]


class Session:
    """Draws the texts of a test, a turn each; one that is cut by the budget is not finished."""

    def __init__(self, policy: CausalLM, says: Says) -> None:
        self.policy, self.says = policy, says
        self.asked: deque[tuple[int, Request]] = deque()
        self.count = 0

    @property
    def waiting(self) -> int:
        return len(self.asked)

    def submit(self, request: Request) -> int:
        self.asked.append((self.count, request))
        self.count += 1
        return self.count - 1

    def next(self) -> tuple[int, Completion]:
        number, request = self.asked.popleft()
        turn = sum(segment.writer == "policy" for segment in request.history)
        tokens = [*self.policy.renderer.encode(self.says(request, turn)), self.policy.renderer.tokenizer.eos_token_id]
        cut = tokens[: request.max_new_tokens]
        zeros = [0.0] * len(cut)
        return number, Completion(cut, zeros, zeros, zeros, finished=len(cut) == len(tokens))

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        return None if stop() else self.next()

    def end(self) -> None: ...

    def forget(self, number: int) -> None: ...

    def close(self) -> None:
        self.asked.clear()


class Scripted:
    """An engine of such sessions."""

    exact = True

    def __init__(self, policy: CausalLM, says: Says) -> None:
        self.policy, self.says = policy, says

    def session(self, sampling: Sampling) -> Session:
        return Session(self.policy, self.says)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        raise NotImplementedError

    def sync(self) -> None: ...

    def close(self) -> None: ...


def turns(*texts: str) -> Says:
    """The same turns for every request."""
    return lambda request, turn: texts[turn]


class Here(EnvironmentFactory):
    """Environments in this process.

    Args:
        maker: of them, all with tools.
    """

    def __init__(self, grader: Grader, maker: Maker) -> None:
        self.maker, offer = maker, maker.make().offer()
        self.offer = Offer(**{**offer, "components": tuple(offer["components"])})
        self.components, self.finishes = self.offer.components, self.offer.finishes
        super().__init__(grader)

    @property
    def names(self) -> tuple[str, ...]:
        return super().names if self.offer.rewards else ()

    def make(self, prompt: Prompt, n: int) -> Sequence[Any]:
        return [self.maker.make() for _ in range(n)]


class Played:
    """Episodes of an environment, or with tools.

    Args:
        what: the environment, as `cohort.environments.spec.parse` takes it.
        apart: in a process of its own.
    """

    def __init__(
        self,
        what: Any = None,
        tools: Sequence[Any] = (),
        *,
        rewards: Sequence[Any] = (),
        rounds: int | None = None,
        apart: bool = False,
    ) -> None:
        spec = parse(what, tools, rounds)
        self.scorer = Scorer(parse_rewards(rewards) if rewards else [])
        grader = Grader(self.scorer, "", 1.0, 64)
        self.factory: EnvironmentFactory
        if apart:
            pool = Pool(spec, timeout=20.0, processes=1)
            self.offer = pool.start()
            self.factory = Apart(grader, pool, self.offer)
        else:
            self.factory = here = Here(grader, spec.load())
            self.offer = here.offer

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        self.factory.close()
        self.scorer.close()

    def play(
        self, policy: CausalLM, says: Says, *rows: dict[str, Any], most: int = 400, graded: bool = True
    ) -> list[Rollout]:
        """An episode of every row."""
        requests = []
        for i, row in enumerate(rows):
            spec = PromptSpec(by_row=True, tools=self.offer.tools)
            (prompt,) = load_prompts([row], policy.renderer, spec)
            requests.append(request_of(prompt, seed=100 + i, count=most))
        runner = Runner(policy, Scripted(policy, says), Sampling(), self.factory)
        rollouts = runner.run(requests)
        return self.factory.group_rewards(rollouts) if graded else rollouts
