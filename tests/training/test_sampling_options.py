"""From the configuration's sampling options to the engine, and from what it draws to rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.batch import Request
from cohort.engine.base import Completion, Sampling
from cohort.training.collect import Collector
from cohort.training.config import make_config, parse_set, read_config
from cohort.training.evaluate import evaluate_prompts
from cohort.training.sampling import make_sampling
from cohort.training.setup import prepare
from tests.helpers import prompt_of, request_of, tiny_policy


def test_options_reach_the_engine(tmp_path: Path) -> None:
    policy = tiny_policy()
    given = parse_set(
        ["logit_bias={a: -2, 11: 5}", "stop_token_ids=[7]", "min_new_tokens=2", "min_p=0.1", 'stop=["x", "\\n"]']
    )
    config = make_config(given)
    config.save(tmp_path / "config.yaml")
    # What a run writes down is what it did: ids stay ids, and texts texts.
    for made in (config, make_config(read_config(tmp_path / "config.yaml"))):
        sampling = make_sampling(made, policy)
        assert sampling.logit_bias == {policy.encode("a")[0]: -2.0, 11: 5.0}
        assert sampling.stop_ids == policy.stop_ids | {7}
        assert (sampling.min_new_tokens, sampling.min_p, sampling.stop) == (2, 0.1, ("x", "\n"))
    assert make_sampling(make_config({"stop": "one"}), policy).stop == ("one",)
    plain = make_sampling(make_config({}), policy)
    assert plain.stop_ids is None
    assert plain.rule(policy.stop_ids).free
    # A digit is a text if it is written as one.
    digit = make_sampling(make_config({"logit_bias": {"5": 1.0}}), policy)
    assert digit.logit_bias == {policy.encode("5")[0]: 1.0}


class Scripted:
    """An engine that gives what it is told."""

    exact = True

    def __init__(self, *completions: Completion) -> None:
        self.completions = completions

    def generate(self, requests: Any, sampling: Sampling) -> Any:
        yield from enumerate(self.completions)

    def sync(self) -> None: ...


@pytest.mark.parametrize(
    ("text", "prefix", "stop", "ended", "seen"),
    [
        ("the answer\nQ:", "", "\nQ:", True, "the answer"),
        # not where it stood before: in the prefix
        ("b#", "a#", "#", True, "a#b"),
        # a token that goes on after it belongs to the rollout, but not to its text
        ("4 2", "", " ", False, "4 2"),
        ("xyzy", "xy", "y", True, "xyxyz"),
    ],
)
def test_the_text_of_a_rollout_ends_before_the_stop_string(
    text: str, prefix: str, stop: str, ended: bool, seen: str
) -> None:
    policy = tiny_policy()
    tokens, before = list(policy.encode(text)), policy.encode(prefix) if prefix else ()
    numbers = [-1.0] * len(tokens)
    completion = Completion(
        tokens, [-9.0] * len(tokens), numbers, numbers, finished=ended, stop=stop if ended else None
    )
    request = request_of(prompt_of(policy, "1+1="), prefix=before)
    collector = Collector(policy, Scripted(completion), Sampling(stop=(stop,)), None, 20)  # type: ignore[arg-type]
    (rollout,) = collector.generate([request])
    assert rollout.text == seen
    assert rollout.tokens == [*before, *tokens]
    assert rollout.finished is ended
    # The number that ratios are taken with is that of the distribution sampled from.
    assert rollout.sampler_logp == [0.0] * len(before) + numbers


def test_greedy_evaluation_keeps_what_ends_a_completion(base: dict[str, Any]) -> None:
    setup = prepare(make_config({**base, "logit_bias": {20: 100.0}, "stop": ["zz"], "top_k": 3}), say=lambda _: None)
    try:
        from dataclasses import replace

        greedy = replace(setup.collector, sampling=replace(setup.collector.sampling, temperature=0.0))
        found = evaluate_prompts(greedy, setup.prompts[:2])
    finally:
        setup.close()
    assert all(set(rollout.tokens) == {20} for rollout in found.rollouts)
    assert isinstance(found.rollouts[0].request, Request)
