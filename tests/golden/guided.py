"""A sampler without a model, for the vectors and identities of methods that put something into the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from cohort.methods import Method
from cohort.types import Prompt, Request, Rollout
from tests.helpers import rollout_of


class FakeSampler:
    """A policy whose rollouts are worth what `worth` says of their requests, in reward and accuracy.

    Attributes:
        drawn: every request that was drawn.
        asked: every text that was asked.
    """

    def __init__(
        self,
        worth: Callable[[Request], float],
        *,
        step: int = 0,
        says: Callable[[Request], str] = lambda request: f"said {request.seed}",
        answers: Callable[[str], str] = lambda source: "",
        context_length: int | None = None,
    ) -> None:
        self.worth, self.says, self.answers, self.step = worth, says, answers, step
        self.context_length = context_length
        self.stop_ids = frozenset({1})
        self.rng = torch.Generator().manual_seed(0)
        self.drawn: list[Request] = []
        self.asked: list[str] = []

    def render(self, source: Any, tools: Any = ()) -> tuple[int, ...]:
        return tuple(ord(c) for c in str(source))

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(ord(c) for c in text)

    def draw(self, requests: Sequence[Request]) -> list[Rollout]:
        assert requests, "nothing was asked for"
        self.drawn += requests
        worth = [self.worth(request) for request in requests]
        return [
            rollout_of(request, [5, 6, 1], reward=w, accuracy=float(w > 0), text=self.says(request))
            for request, w in zip(requests, worth, strict=True)
        ]

    generate = draw

    def ask(self, sources: Sequence[Any]) -> list[str]:
        self.asked += map(str, sources)
        return [self.answers(str(source)) for source in sources]


def requests_of(prompts: int, size: int, **columns: Sequence[Any]) -> list[Request]:
    """`size` requests for each of some prompts, whose place in the group stands in `meta`; and columns of the prompts."""
    made = []
    for p in range(prompts):
        row = {name: values[p] for name, values in columns.items()}
        prompt = Prompt(str(p), f"<{p}>", tuple(ord(c) for c in f"<{p}>"), f"<{p}>", row)
        made += [Request(prompt, prompt.tokens, 1000 * p + 50 * i, 3, meta={"place": i}) for i in range(size)]
    return made


def text_of(request: Request) -> str:
    """What the policy was shown."""
    return "".join(map(chr, request.context.tokens))


def guided(method: Method, requests: Sequence[Request], sampler: FakeSampler) -> dict[int, list[Rollout]]:
    """prompt -> the rollouts that the method's guidance gives, by way of the call that training makes."""
    out: dict[int, list[Rollout]] = {}
    for rollout in method.bind().guidance(requests, sampler):  # type: ignore[arg-type]
        out.setdefault(int(rollout.prompt.id), []).append(rollout)
    return out
