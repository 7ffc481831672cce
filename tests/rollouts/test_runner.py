"""Episodes of turns: what stands in their rollouts, and what ends them."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.engine.base import Completion, Sampling
from cohort.engine.native.engine import NativeEngine, NativeSession
from cohort.engine.native.shared import SharedDecoder
from cohort.environments import Observation, SingleTurn, Step
from cohort.policies.causal_lm import CausalLM
from cohort.rollouts.runner import Runner
from cohort.types import Request, Rollout
from tests.environments.worlds import Guess, Slowly, Worlds, grader
from tests.helpers import prompt_of, request_of, tiny_policy

POLICY = tiny_policy()
# Turns are short, so that several fit; digits are likely.
SHORT = Sampling(temperature=0.9, logit_bias={1: 4.0, **dict.fromkeys(POLICY.renderer.encode("0123456789"), 3.0)})
TEXTS = ("guess a digit", "another one")


def requests(count: int = 6, most: int = 90) -> list[Request]:
    prompts = [prompt_of(POLICY, text, prompt=text) for text in TEXTS]
    return [request_of(prompts[i % 2], seed=100 + i, count=most) for i in range(count)]


def runner(worlds: Any = None, *, policy: CausalLM = POLICY, sampling: Sampling = SHORT, **changes: Any) -> Runner:
    return Runner(policy, NativeEngine(policy), sampling, worlds or Worlds(), **changes)


def same(a: Rollout, b: Rollout) -> bool:
    return (a.tokens, a.mask, a.turns, a.status, a.text) == (b.tokens, b.mask, b.turns, b.status, b.text)


# one turn ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [SHORT, Sampling(temperature=0.7, top_p=0.8), Sampling(temperature=0.0)])
def test_a_single_turn_is_what_the_engine_draws(sampling: Sampling) -> None:
    asked = requests(most=12)
    drawn = dict(NativeEngine(POLICY).generate(asked, sampling))
    for i, rollout in enumerate(runner(SingleTurn(grader()), sampling=sampling, version=7).run(asked)):
        assert rollout.request is asked[i]
        (segment,) = rollout.segments
        assert segment.actions == tuple(drawn[i].tokens)
        assert segment.logp == tuple(drawn[i].sampled_logp)
        assert segment.entropy == tuple(drawn[i].entropy)
        assert (segment.version, segment.writer) == (7, "policy")
        assert rollout.finished == drawn[i].finished
        (turn,) = rollout.turns
        assert (turn.start, turn.end, turn.reward) == (0, len(rollout.tokens), None)
        assert turn.messages == ({"role": "assistant", "content": rollout.text},)
        assert rollout.components == {}


# several ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(most=st.integers(20, 110), turns=st.integers(1, 5), slowly=st.booleans())
def test_turns_and_answers_alternate_within_the_budget(most: int, turns: int, slowly: bool) -> None:
    worlds = Worlds(lambda k: Slowly(Guess(turns)) if slowly else Guess(turns))
    for rollout in runner(worlds, version=3).run(requests(most=most)):
        assert len(rollout.tokens) <= most
        assert 1 <= len(rollout.turns) <= turns
        writers = [segment.writer for segment in rollout.segments]
        assert writers == ["policy", "environment"] * (len(rollout.turns) - 1) + ["policy"]
        assert rollout.mask == [int(s.writer == "policy") for s in rollout.segments for _ in s.actions]
        at = 0
        for turn, said, answer in zip(
            rollout.turns, rollout.segments[::2], [*rollout.segments[1::2], None], strict=True
        ):
            assert (turn.start, turn.end) == (at, at + len(said))
            assert said.version == 3
            assert POLICY.renderer.decode(said.actions).startswith(turn.messages[0]["content"])
            at = turn.end + (len(answer) if answer else 0)
            if answer:
                # What the policy drew is not encoded again, and its end is not put there twice.
                content = turn.messages[1]["content"]
                assert POLICY.renderer.whole(answer.actions) == f"<|user|>{content}<|assistant|>"
                assert said.actions[-1] == 1
        rewards = [turn.reward for turn in rollout.turns if turn.reward is not None]
        assert rollout.components["environment"] == pytest.approx(sum(rewards))
        assert rollout.components["turns"] == (len(rewards) or None)
        assert rollout.finished or len(rollout.turns) < turns or rollout.turns[-1].reward is None
    assert all(getattr(world, "inner", world).closed == 1 for world in worlds.made)


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_an_episode_does_not_depend_on_what_runs_beside_it(slots: int) -> None:
    asked = requests()
    whole = runner().run(asked)
    assert max(len(rollout.turns) for rollout in whole) > 1
    engine = NativeEngine(POLICY, slots=slots)
    assert all(map(same, Runner(POLICY, engine, SHORT, Worlds(lambda k: Slowly(Guess()))).run(asked), whole))
    for request, rollout in zip(asked, whole, strict=True):
        assert same(runner().run([request])[0], rollout)


def test_the_trainer_gives_every_turn_the_samplers_log_probabilities() -> None:
    sampling = replace(SHORT, top_p=0.9, min_new_tokens=2)
    rollouts = runner(sampling=sampling).run(requests())
    assert max(len(rollout.turns) for rollout in rollouts) > 1
    width = max(len(rollout.tokens) for rollout in rollouts)
    logp = POLICY.log_probs(POLICY.actions(rollouts), width=width, temperature=0.9)["logp"].detach()
    for row, rollout in zip(logp, rollouts, strict=True):
        mask = torch.tensor(rollout.mask, dtype=torch.bool)
        drawn = torch.tensor(rollout.sampler_logp)
        assert float((row[: len(mask)] - drawn)[mask].abs().max()) < 1e-4
        assert not drawn[~mask].any()


def test_a_turn_is_drawn_behind_all_that_stands_there() -> None:
    """Each turn is what the engine draws behind the actions before it, with a seed of its own."""
    (rollout,) = [r for r in runner().run(requests()) if len(r.turns) > 1][:1]
    at, seeds = 0, set()
    for i, segment in enumerate(rollout.segments):
        if segment.writer == "policy":
            drawn = [r for r in Recorder.asked(rollout) if len(r.prefix) == at]
            seeds |= {r.seed for r in drawn}
            assert [r.prefix for r in drawn] == [tuple(rollout.tokens[:at])], i
        at += len(segment)
    assert len(seeds) == len(rollout.turns)


class Recorder(NativeEngine):
    """An engine that notes what is submitted and what is finished, in order."""

    def session(self, sampling: Sampling) -> NativeSession:
        session = super().session(sampling)
        self.log: list[tuple[str, Any]] = []
        submit, found = session.submit, session._next

        def submitting(request: Request) -> int:
            self.log.append(("submit", request))
            return submit(request)

        def finding(stop: Any) -> tuple[int, Completion] | None:
            given = found(stop)
            self.log.append(("finish", given[0]) if given else ("stop", None))
            return given

        session.submit = submitting  # type: ignore[method-assign]
        session._next = finding  # type: ignore[method-assign]
        return session

    @staticmethod
    def asked(rollout: Rollout) -> list[Request]:
        engine = Recorder(POLICY)
        (again,) = Runner(POLICY, engine, SHORT, Worlds()).run([rollout.request])
        assert same(again, rollout)
        return [given for what, given in engine.log if what == "submit"]


class Talk:
    """Goes on for as many turns as the row says, and never ends by itself before."""

    def __init__(self) -> None:
        self.turn = 0

    def reset(self, row: Any, seed: int) -> str:
        return str(row["prompt"])

    def step(self, message: Any) -> Step:
        self.turn += 1
        return Step(f"go on ({self.turn})", 0.0, done=self.turn == 3)

    def close(self) -> None: ...


@pytest.mark.parametrize("slowly", [False, True])
def test_the_next_turn_is_submitted_while_others_are_drawn(slowly: bool) -> None:
    talker = prompt_of(POLICY, "talk", prompt="talk")
    other = prompt_of(POLICY, "on and on", prompt="on and on")
    asked = [request_of(other, seed=1, count=100), *[request_of(talker, seed=k, count=90) for k in range(3)]]
    engine = Recorder(POLICY)
    worlds = Worlds(lambda k: Slowly(Talk()) if slowly else Talk())
    sampling = Sampling(temperature=0.9, logit_bias={1: 4.0}, min_new_tokens=0)
    rollouts = Runner(POLICY, engine, sampling, worlds).run(asked)
    submitted = [i for i, (what, _) in enumerate(engine.log) if what == "submit"]
    finished = [i for i, (what, _) in enumerate(engine.log) if what == "finish"]
    # Some turn came in when another was not done yet, and before that one was.
    assert len(submitted) == sum(len(rollout.turns) for rollout in rollouts) > 4
    in_between = [i for i in submitted if any(f < i for f in finished) and sum(f > i for f in finished) > 1]
    assert in_between


def test_a_slow_environment_holds_up_nobody_else() -> None:
    """One waits for what another one does two turns later."""
    event = threading.Event()

    class Waiting(Talk):
        async def step(self, message: Any) -> Step:  # type: ignore[override]
            while not event.is_set():
                await asyncio.sleep(0.001)
            return super().step(message)

    class Last(Talk):
        def step(self, message: Any) -> Step:
            step = super().step(message)
            if step.done:
                event.set()
            return step

    asked = requests(2)
    expected = runner(Worlds(lambda k: Talk())).run(asked)
    found = runner(Worlds(lambda k: Waiting() if k == 0 else Last())).run(asked)
    assert event.is_set() or expected[1].status == "truncated"
    assert all(map(same, found, expected))


# what ends them -----------------------------------------------------------------------------------------------------------


class Broken(Guess):
    def __init__(self, where: str, what: Any) -> None:
        super().__init__()
        self.where, self.what = where, what

    def _at(self, where: str) -> Any:
        if self.where != where:
            return None
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what

    def reset(self, row: Any, seed: int) -> Any:
        return self._at("reset") or super().reset(row, seed)

    def step(self, message: Any) -> Any:
        return self._at("step") or super().step(message)

    def close(self) -> None:
        self._at("close")
        super().close()


@pytest.mark.parametrize("slowly", [False, True])
@pytest.mark.parametrize(
    ("where", "what", "said"),
    [
        (
            "reset",
            RuntimeError("no server"),
            r"reset failed: RuntimeError\('no server'\) \(.*test_runner.py, line \d+\)",
        ),
        ("step", KeyError("x"), "step failed: KeyError"),
        ("step", SystemExit(3), "step failed: .*SystemExit"),
        ("step", Step("more", float("nan")), "reward is a finite number, not float"),
        ("step", Step("more", components={"style": 1.0}), r"component 'style' is not among .* \(turns\)"),
        ("step", Step(), "has an observation to go on from"),
        ("step", "a text", "step gives a cohort.environments.Step, not str"),
        ("step", Step(Observation("see", media=["image"])), "shows 1 media"),
        ("step", Step([{"role": "user"}]), "a message has 'role' and 'content'"),
        ("step", Step([{"role": "user", "content": None}]), r"message 1 \(user\) has no content"),
        ("step", Step([{"role": "user", "content": [{"type": "image", "image": "x"}]}]), "only text can be trained on"),
        ("reset", 7, "an observation is a text or a list of messages, not int"),
        ("reset", "x" * 200, r"shows 20\d tokens, and the model takes 128"),
    ],
)
def test_what_fails_in_an_environment_ends_its_episode_alone(where: str, what: Any, said: str, slowly: bool) -> None:
    asked = requests(4)
    expected = runner().run(asked)
    broken = Broken(where, what)

    def kind(k: int) -> Any:
        world = broken if k == 1 else Guess()
        return Slowly(world) if slowly else world

    # The second environment that is made belongs to the first prompt, as every other request does.
    found = runner(Worlds(kind)).run(asked)
    assert re.search(said, found[2].error), found[2].error
    assert (found[2].status, found[2].finished) == ("failed", False)
    assert found[2].components == {"environment": None, "turns": None}
    assert broken.closed == 1
    assert all(same(found[i], expected[i]) for i in (0, 1, 3))


def test_parts_of_text_are_one_text() -> None:
    parted = [{"role": "user", "content": [{"type": "text", "text": "mo"}, {"type": "text", "text": "re"}]}]
    (whole,) = runner(Worlds(lambda k: Broken("step", Step([{"role": "user", "content": "more"}])))).run(requests(1))
    (found,) = runner(Worlds(lambda k: Broken("step", Step(parted)))).run(requests(1))
    assert found.status == whole.status != "failed"
    assert same(found, whole)
    assert found.turns[0].messages[1] == {"role": "user", "content": "more"}


def test_an_environment_that_cannot_be_made_or_closed_ends_no_other() -> None:
    asked = requests(4)
    expected = runner().run(asked)

    class Some(Worlds):
        def make(self, prompt: Any, n: int) -> Any:
            return super().make(prompt, n - (prompt.source == TEXTS[1]))

    found = runner(Some()).run(asked)
    assert [rollout.status == "failed" for rollout in found] == [False, True, False, True]
    assert "1 environments were made for 2 rollouts" in found[1].error
    assert same(found[0], expected[0])
    with pytest.warns(RuntimeWarning, match=r"did not close: RuntimeError\('stuck'\)"):
        again = runner(Worlds(lambda k: Broken("close", RuntimeError("stuck")))).run(asked)
    assert all(map(same, again, expected))


def test_a_failed_episode_has_no_reward_and_says_why() -> None:
    worlds = Worlds(lambda k: Broken("step", KeyError("x")) if k == 0 else Guess())
    rollouts = worlds.group_rewards(runner(worlds).run(requests(4)))
    assert [rollout.scored for rollout in rollouts] == [False, True, True, True]
    assert rollouts[0].failed
    assert worlds.group_rewards(rollouts) == rollouts
    (said,) = worlds.grader.failures
    assert "KeyError" in said


def test_when_all_is_given_up_environments_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = Worlds(lambda k: Slowly(Guess()) if k % 2 else Guess())
    monkeypatch.setattr(NativeSession, "_next", lambda self, stop: (_ for _ in ()).throw(MemoryError("gone")))
    before = threading.active_count()
    with pytest.raises(MemoryError):
        runner(worlds).run(requests(4))
    assert all(getattr(world, "inner", world).closed == 1 for world in worlds.made)
    assert threading.active_count() == before


# what an environment shows first -----------------------------------------------------------------------------------------


class Showing(Guess):
    def __init__(self, shows: Any) -> None:
        super().__init__()
        self.shows = shows

    def reset(self, row: Any, seed: int) -> Any:
        super().reset(row, seed)
        return self.shows


def test_what_it_shows_first_is_the_context() -> None:
    messages = [{"role": "system", "content": "a game"}, {"role": "user", "content": "begin"}]
    asked = requests(2)
    shown = runner(Worlds(lambda k: Showing(messages if k else "begin")), system="be brief").run(asked)
    assert POLICY.renderer.whole(shown[0].request.context) == "<|system|>be brief<|user|>begin<|assistant|>"
    assert POLICY.renderer.whole(shown[1].request.context) == "<|system|>a game<|user|>begin<|assistant|>"
    assert all(rollout.prompt is request.prompt for rollout, request in zip(shown, asked, strict=True))
    assert all(len(r.request.context) + len(r.tokens) <= 128 for r in shown)


def test_guidance_stays_where_the_environment_shows_the_prompt() -> None:
    (asked,) = requests(1)
    dressed = replace(asked, context=POLICY.renderer.prompt("guess a digit, it is 7")[1])
    (rollout,) = runner().run([dressed])
    assert rollout.request.context == dressed.context
    (refused,) = runner(Worlds(lambda k: Showing("another"))).run([dressed])
    assert "guidance" in refused.error


def test_rollouts_of_a_group_meet_the_same_environment() -> None:
    worlds = Worlds()
    asked = [replace(r, environment_seed=5) for r in requests(4)] + [
        replace(r, environment_seed=6) for r in requests(8)
    ]
    runner(worlds).run(asked)
    digits: dict[tuple[str, int], set[int]] = {}
    # Environments are made prompt by prompt.
    for world, request in zip(worlds.made, sorted(asked, key=lambda r: r.prompt.id != asked[0].prompt.id), strict=True):
        digits.setdefault((request.prompt.id, request.environment_seed), set()).add(world.digit)
    assert all(len(each) == 1 for each in digits.values())
    assert len(set.union(*digits.values())) > 1


def test_a_cut_rollout_keeps_the_turns_before() -> None:
    made = runner()
    (rollout,) = [r for r in made.run(requests()) if len(r.turns) > 1][:1]
    second = rollout.turns[1]
    cut = made.cut(rollout, second.start + 1)
    assert cut.tokens == rollout.tokens[: second.start + 1]
    assert (cut.status, len(cut.turns)) == ("truncated", 2)
    assert cut.turns[0] == rollout.turns[0]
    assert (cut.turns[1].start, cut.turns[1].end) == (second.start, second.start + 1)
    assert cut.text.startswith("\n\n".join(m["content"] for m in rollout.turns[0].messages))


def test_the_next_turn_reads_what_was_said_since_the_last_and_nothing_stays_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokens that the engine encodes: each prompt once, and each answer once, with the token that ended the turn before it."""
    sessions: list[NativeSession] = []
    kept: list[set[Any]] = []
    make, close = NativeEngine.session, NativeSession.close

    def noted(self: NativeEngine, sampling: Sampling) -> NativeSession:
        sessions.append(make(self, sampling))
        return sessions[-1]

    def closing(self: NativeSession) -> None:
        kept.append(self.decoder.kept.contexts if isinstance(self.decoder, SharedDecoder) else set())
        close(self)

    monkeypatch.setattr(NativeEngine, "session", noted)
    monkeypatch.setattr(NativeSession, "close", closing)
    asked = requests()
    rollouts = runner().run(asked)
    answers = [len(segment) for r in rollouts for segment in r.segments if segment.writer == "environment"]
    assert len(answers) > 3
    prompts = {rollout.request.context.tokens for rollout in rollouts}
    # What contexts have in common is encoded once for all of them.
    assert sum(answers) < sessions[0].encoded <= sum(map(len, prompts)) + sum(answers) + len(answers)
    assert kept == [set()]
