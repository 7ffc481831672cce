"""Answers by tree search with a value model, and the value model's training by tree search with tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.policies.value import ValueModel
from cohort.rollouts.collect import Collector
from cohort.rollouts.search import Evaluate, Search, State, Tree, search
from cohort.seeds import derive
from cohort.types import Context, Prompt, Request, Rollout, Segment

# In training: rounds, completions of a state, visible children, exploration (the paper's).
TRAINING = Search(rounds=100, width=5, children=3, exploration=0.2, guided=False)
# Trees that are searched side by side.
AT_ONCE = 64


@dataclass(frozen=True)
class SearchPlan:
    """A search for the answers of an evaluation.

    Attributes:
        rounds: of the search of each prompt.
        value: file of the value model.
        data: what the value model is trained on first, and then written to that file; None: it is there.
        limit: most prompts of that data; fit_rounds: of the search of each of them; lr, epochs: of the value model.
    """

    rounds: int
    value: Path
    data: str | None = None
    limit: int | None = None
    fit_rounds: int = TRAINING.rounds
    lr: float = 1e-5
    epochs: int = 2


@dataclass(frozen=True)
class Searcher:
    """Searches the completions of prompts.

    Attributes:
        collector: draws them, at the temperature of its sampling, and judges them.
    """

    collector: Collector
    seed: int = 0

    def trees(
        self,
        prompts: Sequence[Prompt],
        how: Search,
        value: ValueModel | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[Tree]:
        """The tree of every prompt: guided by a value model, or by the run's rewards where that is None."""
        out: list[Tree] = []
        for start in range(0, len(prompts), AT_ONCE):
            part = prompts[start : start + AT_ONCE]
            evaluate = self._rewards(part) if value is None else self._values(part, value)
            out += search(len(part), replace(how, guided=value is not None), self._complete(part, how.width), evaluate)
            progress(len(out))
        return out

    def answers(self, prompts: Sequence[Prompt], trees: Sequence[Tree]) -> list[Rollout]:
        """The answers that were found, as rollouts with their rewards."""
        made = [self._rollout(prompt, tree.answer) for prompt, tree in zip(prompts, trees, strict=True)]
        return self.collector.factory.group_rewards(made)

    def fit(
        self,
        value: ValueModel,
        prompts: Sequence[Prompt],
        *,
        rounds: int,
        lr: float,
        epochs: int,
        report: Callable[[int, float], None] = lambda epoch, loss: None,
    ) -> int:
        """Train a value model on what a search with rewards found: the reward of every completion, and V of every state that
        was gone on from. Returns how many these are."""
        sequences: list[tuple[int, ...]] = []
        targets: list[float] = []
        for prompt, tree in zip(prompts, self.trees(prompts, replace(TRAINING, rounds=rounds)), strict=True):
            worth = {node.text: node.value for node in tree.expanded()} | tree.found
            sequences += [self._tokens(prompt, text) for text in worth]
            targets += worth.values()
        value.fit(sequences, targets, lr=lr, epochs=epochs, seed=self.seed, report=report)
        return len(targets)

    # -----------------------------------------------------------------------------------------------------------------

    def _tokens(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        return (*prompt.tokens, *self.collector.policy.renderer.encode_completion(prompt, text))

    def _rollout(self, prompt: Prompt, text: str) -> Rollout:
        request = Request(prompt, Context(prompt.tokens), 0, self.collector.max_new_tokens)
        return Rollout(request, (Segment(self._tokens(prompt, text)[len(prompt.tokens) :]),), text=text)

    def _complete(self, prompts: Sequence[Prompt], width: int) -> Callable[[Sequence[State]], list[list[str]]]:
        drawn = 0

        def complete(states: Sequence[State]) -> list[list[str]]:
            nonlocal drawn
            requests = []
            for tree, text in states:
                prompt, drawn = prompts[tree], drawn + 1
                begun = self._tokens(prompt, text)[len(prompt.tokens) :]
                limit = self.collector.policy.renderer.context_length
                room = self.collector.max_new_tokens - len(begun)
                room = room if limit is None else min(room, limit - len(prompt.tokens) - len(begun))
                if room > 0:
                    requests += [
                        Request(
                            prompt,
                            Context(prompt.tokens),
                            derive(self.seed, "search", prompt.id, drawn, k),
                            room,
                            history=(Segment(begun, "method"),) if begun else (),
                            meta={"state": (tree, text)},
                        )
                        for k in range(width)
                    ]
            found: dict[State, list[str]] = {}
            for rollout in self.collector.generate(requests, alone=True):
                found.setdefault(rollout.request.meta["state"], []).append(rollout.text)
            # Where there is no room for more, the completion ends.
            return [found.get(state, [state[1].rstrip("\n")]) for state in states]

        return complete

    def _values(self, prompts: Sequence[Prompt], value: ValueModel) -> Evaluate:
        return lambda states: value.values([self._tokens(prompts[tree], text) for tree, text in states])

    def _rewards(self, prompts: Sequence[Prompt]) -> Evaluate:
        def evaluate(states: Sequence[State]) -> list[float]:
            made = [self._rollout(prompts[tree], text) for tree, text in states]
            # What no reward applies to is worth nothing.
            return [r.reward if r.scored else 0.0 for r in self.collector.factory.group_rewards(made)]

        return evaluate


def fit_value(
    searcher: Searcher, value: ValueModel, prompts: Sequence[Prompt], plan: SearchPlan, log: Callable[[str], None]
) -> None:
    """Train a value model on a search with the run's rewards, and write it.

    Raises:
        UsageError: there is nothing to train it on.
    """
    if not prompts:
        raise UsageError(
            f"--value-data {plan.data} has no prompt that is not evaluated on: the value model needs others"
        )
    log(f"searching {len(prompts)} prompts with rewards, {plan.fit_rounds} rounds each, to train the value model")
    how = {"rounds": plan.fit_rounds, "epochs": plan.epochs}
    count = searcher.fit(
        value, prompts, lr=plan.lr, report=lambda epoch, loss: log(f"epoch {epoch}: squared error {loss:.4g}"), **how
    )
    write_atomically(plan.value, value.save)
    log(f"value model trained on {count} states and completions, and written to {plan.value}")
