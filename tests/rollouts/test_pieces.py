"""Episodes whose context is rebuilt: what is trained is what was sampled, each turn where it was drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from cohort.axes.guidance import without_guidance
from cohort.engine.base import Sampling, context_of
from cohort.engine.native.engine import NativeEngine
from cohort.environments import Observation, Step
from cohort.rollouts.batching import make_batch
from cohort.rollouts.keeping import restored, stored
from cohort.rollouts.runner import Runner
from cohort.types import Context, Request, Rollout, Segment
from tests.environments.worlds import Worlds
from tests.families import policy_of
from tests.helpers import prompt_of, request_of

POLICY = policy_of("hostile")
END = POLICY.renderer.encode("<|im_end|>")[0]
SAMPLING = Sampling(temperature=0.9, top_p=0.95, logit_bias={END: 6.0})


class Talk:
    """Answers four times, the third time with a conversation that begins anew."""

    fresh = True

    def reset(self, row: Any, seed: int) -> str:
        self.turn = 0
        return str(row["prompt"])

    def step(self, message: Any) -> Step:
        self.turn += 1
        seen = Observation(f"and {self.turn}?", fresh=self.fresh and self.turn == 3)
        return Step(seen, 0.5, done=self.turn == 5)

    def close(self) -> None: ...


class Plain(Talk):
    fresh = False


def requests(count: int = 4, most: int = 600) -> list[Request]:
    prompt = prompt_of(POLICY, "Hi there", prompt="Hi there")
    return [request_of(prompt, seed=50 + i, count=most) for i in range(count)]


def run(asked: list[Request], kind: Any = Talk, **how: Any) -> list[Rollout]:
    return Runner(POLICY, NativeEngine(POLICY), SAMPLING, Worlds(lambda k: kind()), **how).run(asked)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the chat template rewrites")
        yield


def scores(rollouts: list[Rollout]) -> torch.Tensor:
    width = max(len(rollout.tokens) for rollout in rollouts)
    return POLICY.log_probs(POLICY.actions(rollouts), width=width, temperature=0.9)["logp"]


def alone(rollout: Rollout) -> list[Rollout]:
    """A rollout of a single turn for each piece."""
    out, at = [], 0
    for start, end, context in rollout.context.pieces(len(rollout.tokens)):
        own: list[Segment] = []
        for segment in rollout.segments:
            own += [segment] if start <= at < end else []
            at = at + len(segment) if start <= at < end else at
        assert sum(map(len, own)) == end - start
        rest, at = own, end
        out.append(Rollout(replace(rollout.request, context=replace(context, rebuilt=())), tuple(rest)))
        rollout = rollout.replace(segments=rollout.segments[len(own) :])
    return out


def test_turns_are_pieces_and_all_is_sampled() -> None:
    for rollout in run(requests()):
        assert len(rollout.turns) == 5
        assert [segment.writer for segment in rollout.segments] == ["policy"] * 5
        assert rollout.mask == [1] * len(rollout.tokens)
        assert [turn.start for turn in rollout.turns] == [0, *(turn.end for turn in rollout.turns[:-1])]
        assert [turn.context is not None for turn in rollout.turns] == [False, True, True, True, True]
        texts = [POLICY.renderer.whole(turn.context) for turn in rollout.turns[1:] if turn.context]
        assert texts[2] == POLICY.renderer.render("and 3?")
        assert texts[0].startswith("<|im_start|>3 messages<|im_end|>")
        assert all(f"and {i}?" in text for i, text in enumerate(texts, 1))
        # The conversation that began anew goes on without what was said before.
        assert "and 2?" not in texts[3]
        assert rollout.components["environment"] == 2.5


@pytest.mark.parametrize("mode", ["shared", "whole"])
def test_trainer_and_sampler_agree_in_every_piece(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setitem(vars(POLICY), "forward_mode", mode)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*own cache")
        rollouts = run(requests())
    logp = scores(rollouts).detach()
    for row, rollout in zip(logp, rollouts, strict=True):
        drawn = torch.tensor(rollout.sampler_logp)
        assert float((row[: len(drawn)] - drawn).abs().max()) < 1e-4
    # In the first context, as if all were one piece, it would be another.
    one = [r.replace(turns=tuple(replace(turn, context=None) for turn in r.turns)) for r in rollouts]
    assert float((scores(one).detach() - logp).abs().max()) > 0.1


def test_scores_and_gradients_are_those_of_turns_alone() -> None:
    (rollout,) = run(requests(1))
    parts = alone(rollout)
    assert len(parts) == 5
    together, apart = scores([rollout])[0], torch.cat([scores([part])[0] for part in parts])
    assert torch.allclose(together, apart, atol=1e-5)
    weight = torch.linspace(-1, 1, len(together))
    grads = [torch.autograd.grad((weight * x).sum(), POLICY.trainable(), retain_graph=True) for x in (together, apart)]
    assert all(torch.allclose(a, b, atol=1e-4 * float(b.abs().max())) for a, b in zip(*grads, strict=True))


def test_an_episode_goes_on_from_inside_a_later_piece() -> None:
    (whole,) = run(requests(1))
    third = whole.turns[2]
    for at in (third.start, third.start + 1):
        (asked,) = whole.branches(at, [7])
        assert context_of(asked) == whole.before(at)
        (child,) = run([asked])
        assert child.status == "finished"
        assert child.tokens[:at] == whole.tokens[:at]
        assert child.turns[:2] == whole.turns[:2]
        assert (child.turns[2].start, child.turns[2].context) == (third.start, third.context)
        assert child.components == whole.components
        assert torch.allclose(scores([child])[0][at:].detach(), torch.tensor(child.sampler_logp[at:]), atol=1e-4)
        # What it saw later is what an episode with these turns sees.
        texts = [message["content"] for turn in child.turns for message in turn.messages[1:]]
        assert texts == [f"and {i}?" for i in (1, 2, 3, 4)]
        assert child.turns[3].context == Context(POLICY.renderer.prompt("and 3?")[1])


def test_the_limit_of_tokens_counts_what_a_context_grows_by() -> None:
    asked = requests(most=45)
    seen = []
    for rollout in run(asked, Plain):
        room = len(rollout.request.context) + 45
        for start, end, context in rollout.context.pieces(len(rollout.tokens)):
            assert len(context) + end - start <= room
        assert len(rollout.tokens) <= 45
        seen.append(rollout.status)
    assert "truncated" in seen
    # A conversation that begins anew has all the room that is left.
    assert {rollout.status for rollout in run(requests(most=600))} == {"finished"}


@pytest.mark.parametrize("history", ["auto", "rebuild"])
def test_a_run_of_the_same_seeds_is_the_same(history: Any) -> None:
    first, again = run(requests(), history=history), run(requests(), history=history)
    assert [(r.tokens, r.turns, r.sampler_logp) for r in first] == [(r.tokens, r.turns, r.sampler_logp) for r in again]


def test_pieces_come_back_from_a_checkpoint() -> None:
    for rollout in run(requests(2)):
        again = restored(stored(rollout), rollout.prompt)
        assert again.turns == rollout.turns
        assert again.context == rollout.context
        assert torch.equal(scores([again]), scores([rollout]))


def test_a_batch_has_a_row_an_episode() -> None:
    rollouts = run(requests())
    batch = make_batch(rollouts, {})
    assert batch.size == 4
    assert batch.mask.sum(1).tolist() == [len(rollout.tokens) for rollout in rollouts]


def test_guidance_is_taken_out_of_every_piece() -> None:
    policy = policy_of("qwen3")
    prompt = prompt_of(policy, "Hi there", prompt="Hi there")
    guided = replace(request_of(prompt, count=600), context=policy.renderer.prompt("Hi there. It is 4.")[1])
    sampling = Sampling(logit_bias={policy.renderer.encode("<|im_end|>")[0]: 6.0})
    worlds = Worlds(lambda k: Plain())
    (rollout,) = Runner(policy, NativeEngine(policy), sampling, worlds, history="rebuild").run([guided])
    texts = [policy.renderer.whole(rollout.before(turn.start)) for turn in rollout.turns]
    assert len(texts) == 5
    assert all("It is 4." in text for text in texts)
    plain = without_guidance(rollout)
    assert [policy.renderer.whole(plain.before(turn.start)) for turn in plain.turns] == [
        text.replace(" It is 4.", "").replace("Hi there.", "Hi there") for text in texts
    ]
    assert all(segment.logp is None for segment in plain.segments)


def test_a_rollout_is_cut_inside_a_later_piece() -> None:
    runner = Runner(POLICY, NativeEngine(POLICY), SAMPLING, Worlds(lambda k: Talk()))
    (whole,) = runner.run(requests(1))
    third = whole.turns[2]
    cut = runner.cut(whole, third.start + 1)
    assert cut.turns[2].context == third.context
    assert cut.before(third.start + 1) == whole.before(third.start + 1)
    assert [place for place, _ in cut.context.rebuilt] == [turn.start for turn in whole.turns[1:3]]


def test_an_episode_that_is_lived_through_again_goes_on_where_it_stood() -> None:
    """Turns that stand behind each other do so again, also behind a piece that a template began."""
    policy = policy_of("llama3")
    prompt = prompt_of(policy, "Hi there", prompt="Hi there")
    ends = policy.renderer.encode("<|eot_id|>")[0]
    # A token that ends with a space is likely, so that turns are trimmed here and there.
    spaces = [i for i in range(policy.vocabulary) if policy.renderer.spell([i]).endswith(" ")]
    sampling = Sampling(logit_bias={ends: 6.0, **dict.fromkeys(spaces, 3.0)})
    runner = Runner(policy, NativeEngine(policy), sampling, Worlds(lambda k: Plain()))
    wholes = runner.run([request_of(prompt, seed=i, count=600) for i in range(8)])
    kinds = {tuple(turn.context is None for turn in rollout.turns[1:]) for rollout in wholes}
    assert len(kinds) > 1
    for whole in wholes:
        at = whole.turns[2].start
        (child,) = runner.run([whole.branches(at, [9])[0]])
        assert child.turns[:2] == whole.turns[:2]
        assert child.before(at) == whole.before(at)
        for rollout in (whole, child):
            messages = [{"role": "user", "content": "Hi there"}]
            for turn in rollout.turns:
                assert policy.renderer.whole(rollout.before(turn.start)) == policy.renderer.render(messages)
                messages += turn.messages
