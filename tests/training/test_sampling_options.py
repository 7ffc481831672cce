"""From the configuration's sampling options to the engine, and from what it draws to rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cohort.engine.base import Completion, Sampling
from cohort.environments import SingleTurn
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.rollouts.runner import Runner
from cohort.training.build import prepare
from cohort.training.config import make_config, parse_set, read_config
from cohort.training.evaluate import evaluate_prompts
from cohort.training.sampling import make_sampling
from cohort.types import Request
from tests.helpers import prompt_of, request_of, tiny_policy
from tests.model_folders import make_folder


def test_options_reach_the_engine(tmp_path: Path) -> None:
    policy = tiny_policy()
    given = parse_set(
        ["logit_bias={a: -2, 11: 5}", "stop_token_ids=[7]", "min_new_tokens=2", "min_p=0.1", 'stop=["x", "\\n"]']
    )
    config = make_config(given)
    config.save(tmp_path / "config.yaml")
    # What a run writes down is what it did: ids stay ids, and texts texts.
    for made in (config, make_config(read_config(tmp_path / "config.yaml"))):
        sampling = make_sampling(made, policy.renderer, policy.vocabulary)
        assert sampling.logit_bias == {policy.renderer.encode("a")[0]: -2.0, 11: 5.0}
        assert sampling.stop_ids == policy.renderer.stop_ids | {7}
        assert (sampling.min_new_tokens, sampling.min_p, sampling.stop) == (2, 0.1, ("x", "\n"))
    assert make_sampling(make_config({"stop": "one"}), policy.renderer, policy.vocabulary).stop == ("one",)
    plain = make_sampling(make_config({}), policy.renderer, policy.vocabulary)
    assert plain.stop_ids is None
    assert plain.rule(policy.renderer.stop_ids).free
    # A digit is a text if it is written as one.
    digit = make_sampling(make_config({"logit_bias": {"5": 1.0}}), policy.renderer, policy.vocabulary)
    assert digit.logit_bias == {policy.renderer.encode("5")[0]: 1.0}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CausalLM]:
    """Models with the tokenizers that people's models have, by name."""
    root = tmp_path_factory.mktemp("people")
    names = ("chat", "chatbase", "specialtags", "llama2", "smallvocab")
    return {name: CausalLM.load(str(make_folder(name, root / name))) for name in names}


def sampling_of(policy: CausalLM, *keys: str) -> Sampling:
    return make_sampling(make_config(parse_set(list(keys))), policy.renderer, policy.vocabulary)


def test_a_stop_text_that_is_one_special_token_is_that_token(people: dict[str, CausalLM]) -> None:
    policy = people["chatbase"]
    for text in ("<|im_start|>", "<|im_end|>"):
        made = sampling_of(policy, f'stop=["{text}", "x"]')
        assert made.stop == ("x",)
        assert made.stop_ids == policy.renderer.stop_ids | {policy.renderer.tokenizer.convert_tokens_to_ids(text)}
    # Content, too, where it is a token.
    tags = people["specialtags"]
    assert sampling_of(tags, 'stop=["</answer>"]').stop_ids == tags.renderer.stop_ids | set(
        tags.renderer.encode("</answer>")
    )
    assert sampling_of(tags, 'stop=["4</answer>"]').stop == ("4</answer>",)
    assert sampling_of(people["chat"], 'stop=["</answer>"]').stop == ("</answer>",)
    with pytest.raises(
        UsageError, match=r"stop: '<\|im_end\|>\\n' has the special token <\|im_end\|>, which is no part"
    ):
        sampling_of(policy, 'stop=["<|im_end|>\\n"]')


def test_a_new_line_can_be_typed_in_a_stop_text(people: dict[str, CausalLM]) -> None:
    assert sampling_of(people["chat"], r"stop=['\nQ:', '\\n']").stop == ("\nQ:", r"\\n")


def test_tokens_that_the_model_does_not_have_are_refused(people: dict[str, CausalLM]) -> None:
    policy = people["smallvocab"]
    token = policy.renderer.tokenizer.convert_tokens_to_ids("<tool_x>")
    for key in ("logit_bias={'<tool_x>': 1}", "stop=['<tool_x>']"):
        with pytest.raises(UsageError, match=rf"{key.split('=')[0]}: token <tool_x> \(id {token}\)"):
            sampling_of(policy, key)
    for key in (f"logit_bias={{{token}: 1}}", f"stop_token_ids=[{token}]"):
        with pytest.raises(UsageError, match=rf"there is no token {token}; the model has token ids 0 to {token - 1}"):
            sampling_of(policy, key)


def test_a_biased_text_is_one_as_it_stands_behind_others(people: dict[str, CausalLM]) -> None:
    policy = people["llama2"]
    made = sampling_of(policy, "logit_bias={'4': 1, ' 4': 2}")
    assert {
        policy.renderer.tokenizer.convert_ids_to_tokens(token): bias for token, bias in made.logit_bias.items()
    } == {"4": 1.0, "▁4": 2.0}


@pytest.mark.parametrize("name", ["llama2", "chatbase", "specialtags"])
def test_the_text_of_a_rollout_is_what_was_drawn(people: dict[str, CausalLM], name: str) -> None:
    policy = people[name]
    prompt = prompt_of(policy, "Once upon a time, there was a")
    end = min(policy.renderer.stop_ids)
    for text in (" little girl", "ball <think>hmm</think>", "x != y , a", " "):
        tokens = [*policy.renderer.encode_completion(prompt, text), end]
        numbers = [-1.0] * len(tokens)
        completion = Completion(tokens, numbers, numbers, numbers, finished=True)
        runner = Runner(policy, Scripted(completion), Sampling(), QUESTIONS)  # type: ignore[arg-type]
        (rollout,) = runner.run([request_of(prompt, count=50)])
        assert rollout.text == text


QUESTIONS = SingleTurn(Grader(Scorer([]), "", 1.0, 50))


class Scripted:
    """An engine that gives what it is told."""

    exact = True

    def __init__(self, *completions: Completion) -> None:
        self.completions = completions

    def session(self, sampling: Sampling) -> Scripted:
        self.asked: list[Request] = []
        return self

    @property
    def waiting(self) -> int:
        return len(self.asked)

    def submit(self, request: Request) -> int:
        self.asked.append(request)
        return len(self.completions) - 1

    def next(self) -> tuple[int, Completion]:
        self.asked.pop()
        return 0, self.completions[0]

    def forget(self, number: int) -> None: ...

    def end(self) -> None: ...

    def close(self) -> None: ...


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
    tokens, before = list(policy.renderer.encode(text)), policy.renderer.encode(prefix) if prefix else ()
    numbers = [-1.0] * len(tokens)
    completion = Completion(
        tokens, [-9.0] * len(tokens), numbers, numbers, finished=ended, stop=stop if ended else None
    )
    request = request_of(prompt_of(policy, "1+1="), prefix=before)
    runner = Runner(policy, Scripted(completion), Sampling(stop=(stop,)), QUESTIONS)  # type: ignore[arg-type]
    (rollout,) = runner.run([request])
    assert rollout.text == seen
    assert rollout.tokens == [*before, *tokens]
    assert rollout.finished is ended
    # The number that ratios are taken with is that of the distribution sampled from.
    assert rollout.sampler_logp == [0.0] * len(before) + numbers


def test_greedy_evaluation_keeps_what_ends_a_completion(base: dict[str, Any]) -> None:
    setup = prepare(make_config({**base, "logit_bias": {20: 100.0}, "stop": ["zz"], "top_k": 3}), log=lambda _: None)
    try:
        from dataclasses import replace

        greedy = replace(setup.collector, sampling=replace(setup.collector.sampling, temperature=0.0))
        found = evaluate_prompts(greedy, setup.prompts[:2])
    finally:
        setup.close()
    assert all(set(rollout.tokens) == {20} for rollout in found.rollouts)
    assert isinstance(found.rollouts[0].request, Request)
