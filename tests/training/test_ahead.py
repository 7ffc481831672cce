"""Runs that sample ahead of training."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cohort import registry
from cohort.engine import detached
from cohort.engine.native.engine import NativeSession
from cohort.environments import EnvironmentFactory, Step
from cohort.errors import UsageError
from cohort.rewards import judge
from cohort.rewards.calling import RewardError
from cohort.training import run as module
from cohort.training.build import prepare
from cohort.training.checks import check_ahead
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.run import Result, train
from cohort.types import Prompt
from tests import micro
from tests.training.test_run import run

TIMED = ("time/", "queue/")


def said(result: Result) -> str:
    """The metrics, as a text: some are NaN, which equals nothing."""
    return str([{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in result.metrics])


def same(left: Result, right: Result) -> bool:
    weights = [load_file(each.folder / "final" / "model.safetensors") for each in (left, right)]
    return said(left) == said(right) and all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Any:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name in ("rollouts", "judge")]


# the same run again ----------------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def breaking(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A run that breaks when a step would begin."""
    real = module.one_step

    def one_step(training: Any) -> Any:
        if training.progress.step == step:
            raise Broken
        return real(training)

    with monkeypatch.context() as patch:
        patch.setattr(module, "one_step", one_step)
        with pytest.raises(Broken):
            run(base)


METHODS: dict[str, dict[str, Any]] = {
    "states and refill": {"method": "dapo+fg-expo", "ahead": 2, "updates": 2},
    "windows": {"method": "t-ppo(window=3)", "ahead": 1},
    "adapters": {"method": "grpo", "ahead": 3, "lora": 2},
    "replay": {"method": "dr-grpo", "ahead": 1, "replay_groups": 2},
    "prompts found out about": {"method": "vas", "ahead": 1},
}


@pytest.mark.parametrize("name", [*METHODS][:2])
def test_a_resumed_run_is_the_same_to_the_last_bit(
    base: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**base, **METHODS[name], "steps": 6, "checkpoint.every": 2, "record": "none"}
    whole = run(given, out=str(tmp_path / "whole"))
    breaking(given, monkeypatch, 3)
    again = train(make_config(given), resume=True, display=Display(quiet=True))
    if name == "adapters":
        assert said(again) == said(whole)
    else:
        assert same(again, whole)
    # What was drawn in an earlier window is older.
    least = [min(age for age in range(5) if row.get(f"rollouts/age/{age}")) for row in whole.metrics]
    assert least == [min(step, METHODS[name]["ahead"]) for step in range(6)]
    assert name == "windows" or least == [row["rollouts/age_max"] for row in whole.metrics]
    assert not (again.folder / "ahead").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*METHODS][2:])
def test_so_is_one_that_keeps_rollouts_or_draws_to_find_out(
    base: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_a_resumed_run_is_the_same_to_the_last_bit(base, name, tmp_path, monkeypatch)


def test_the_first_steps_are_those_of_a_run_that_takes_turns_and_none_is_thrown_away(base: dict[str, Any]) -> None:
    ahead = run(base, ahead=1, correction="off", out=base["out"] + "-ahead")
    turns = run(base, steps=1)
    both = [json.loads((each.folder / "metrics.jsonl").read_text().splitlines()[0]) for each in (ahead, turns)]
    shared = [name for name in both[1] if not name.startswith(TIMED)]
    assert [both[0][name] for name in shared] == [both[1][name] for name in shared]
    assert [row["rollouts/sampled"] for row in ahead.metrics] == [12.0] * 4
    sampled = sum(12 * row["completion/length_mean"] for row in ahead.metrics)
    assert ahead.summary["sampled_tokens"] == pytest.approx(sampled)


# what is asked together ------------------------------------------------------------------------------------------------


def refused(base: dict[str, Any], text: str, **changes: Any) -> None:
    with pytest.raises(UsageError, match=text):
        prepare(make_config({**base, "ahead": 1, **changes}), log=lambda _: None)


def test_methods_that_need_on_policy_rollouts_are_refused_by_name(base: dict[str, Any]) -> None:
    refused(
        base, r"'opo' \(length_weighted\) needs on-policy rollouts: its baseline .* up to 1 steps old", method="opo"
    )
    refused(base, r"'pipo' \(retrospect\) needs on-policy rollouts: a step's rewards judge", method="dapo+pipo")
    # Without a ratio only the weights of a correction say what drew the rollouts.
    for changes in ({"correction": "off"}, {"old_logp": "sampler"}):
        refused(base, r"'remax' \(none\) needs on-policy rollouts: it leaves out", method="remax", **changes)
    config = make_config({**base, "ahead": 1})
    for name in ("remax", "gpg", "rollout-correction(loss='reinforce',proximal='sampler')", "grpo", "ppo"):
        check_ahead(registry.method(name), config)
    check_ahead(registry.method("opo"), make_config(base))


def test_what_samples_nothing_or_reads_what_moves_is_refused(base: dict[str, Any]) -> None:
    pairs = [{"prompt": "1+1=", "chosen": "2", "rejected": "3"}] * 4
    refused(base, "nothing is sampled", method="dpo", data=None, pairs=pairs, reward=[])
    refused(base, "reads old_values of models which training moves", method="dapo+ppo:advantage,critic")


def test_a_loss_is_corrected_by_default(base: dict[str, Any]) -> None:
    lines: list[str] = []
    setup = prepare(make_config({**base, "ahead": 1}), log=lines.append)
    setup.close()
    assert [stage.name for stage in setup.method.correction] == ["importance_weight"]
    assert any("rollouts drawn ahead of training are an earlier policy's" in line for line in lines)
    metrics = run(base, ahead=1, lr=0.01).metrics
    assert metrics[0]["correction/effective_share"] == pytest.approx(1.0)
    assert all(row["correction/effective_share"] < 0.9999 for row in metrics[1:])
    # The engine is exact, and what is apart is what training changed.
    assert all(row["mismatch/engine"] == row["mismatch"] < 1e-5 < row["mismatch/staleness"] for row in metrics[1:])


# rewards, judges, environments -----------------------------------------------------------------------------------------


def test_what_rewards_know_and_report_is_of_the_step_whose_rollouts_they_see(
    base: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "reward.py"
    file.write_text(
        "def f(completions, trainer_state, log_metric, log_extra, **_):\n"
        "    log_metric('knows', trainer_state.global_step)\n"
        "    log_extra('twice', [2 * trainer_state.global_step] * len(completions))\n"
        "    print('said at', trainer_state.global_step)\n"
        "    return [float(len(c) % 2) for c in completions]\n"
    )
    result = run(base, ahead=2, reward=f"{file}:f")
    assert [row["knows"] for row in result.metrics] == [0.0, 1.0, 2.0, 3.0]
    import pyarrow.parquet as pq

    for step in range(1, 5):
        table = pq.read_table(result.folder / "rollouts" / f"step-{step:06d}.parquet").to_pydict()
        assert {*table["twice"]} == {2 * (step - 1)}
    printed = (result.folder / "rewards.log").read_text()
    assert all(f"said at {step}" in printed for step in range(4))


def test_an_error_while_rollouts_are_drawn_ends_the_run_at_their_step(base: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text(
        "def f(completions, trainer_state, **_):\n"
        "    if trainer_state.global_step == 2:\n"
        "        raise ValueError('not this one')\n"
        "    return [1.0] * len(completions)\n"
    )
    with pytest.raises(RewardError, match="not this one") as raised:
        run(base, ahead=2, reward=f"{file}:f")
    folder = Path(base["out"])
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000002"]
    assert any("everything up to step 2 is saved" in note for note in raised.value.__notes__)
    file.write_text("def f(completions, **_):\n    return [1.0] * len(completions)\n")
    changed = make_config({**base, "ahead": 2, "reward": f"{file}:f"})
    again = train(changed, resume=True, accept_changes=True, display=Display(quiet=True))
    assert len(again.metrics) == 4


def test_an_error_of_the_first_rewards_leaves_no_folder(base: dict[str, Any]) -> None:
    # Graded rewards, for a method of right and wrong; the second step's rollouts are being drawn.
    with pytest.raises(UsageError, match="rewards 0 and 1"):
        run(base, ahead=1, method="disco", reward=["0.3*format:[0-4]", "0.5*length"])
    assert not Path(base["out"]).exists()


def test_a_judge_has_its_time_limit_in_the_thread_that_draws() -> None:
    woken, found = threading.Event(), list[BaseException]()

    def sleeper(completions: list[str]) -> list[float]:
        woken.wait(30)
        return [1.0]

    def draw() -> None:
        judge.LIMIT.set(0.2)
        try:
            judge.ask(sleeper, [Prompt("a", "a", (), "a")], completions=["a"])
        except RewardError as error:
            found.append(error)

    began, thread = time.monotonic(), threading.Thread(target=draw)
    thread.start()
    thread.join(10)
    assert time.monotonic() - began < 5
    assert "gave no verdicts for 1 questions within 0.2 s" in str(found[0])
    # It says where the judge was.
    assert "woken.wait(30)" in str(found[0])
    woken.set()
    for other in [each for each in threading.enumerate() if each.name == "judge"]:
        other.join(5)


class Digit:
    def reset(self, row: Any, seed: int) -> Any:
        self.left = 2
        return row["prompt"]

    def step(self, message: Any) -> Step:
        self.left -= 1
        return Step("again", float("1" in message["content"]), done=not self.left)

    def close(self) -> None: ...


class Digits(EnvironmentFactory):
    def make(self, prompt: Any, n: int) -> list[Digit]:
        return [Digit() for _ in range(n)]


def test_episodes_are_drawn_and_evaluated_beside_each_other(base: dict[str, Any], tmp_path: Path) -> None:
    given = {
        **base,
        "reward": [],
        "environment": Digits,
        "eval_data": base["data"][:4],
        "eval_every": 1,
        "turn_tokens": 4,
    }
    given |= {"max_new_tokens": 24, "ahead": 1}
    first, second = (run(given, out=str(tmp_path / name)) for name in ("one", "two"))
    assert same(first, second)
    assert all("eval/accuracy" in row and "time/idle" in row for row in first.metrics[:-1])
    # Evaluations are of the newest weights, and of them alone.
    weights = load_file(first.folder / "final" / "model.safetensors")
    turns = run({**given, "ahead": 0, "steps": 1}, model=str(first.folder / "final"), out=str(tmp_path / "three"))
    assert weights
    assert turns.before is not None
    assert first.after is not None
    assert turns.before.accuracy == first.after.accuracy


# the end -------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_asked_to_stop_ends_after_its_step_and_goes_on_the_same(
    base: dict[str, Any], tmp_path: Path
) -> None:
    given = {**base, "ahead": 2, "record": "none"}
    whole = run(given, out=str(tmp_path / "whole"))
    display = Display(quiet=True)
    display.step = lambda step, *a, **k: signal.raise_signal(signal.SIGINT) if step == 2 else None  # type: ignore[method-assign]
    stopped = train(make_config(given), display=display)
    assert stopped.stopped
    assert [p.name for p in (stopped.folder / "checkpoints").iterdir()] == ["step-000002"]
    assert same(train(make_config(given), resume=True, display=Display(quiet=True)), whole)


@pytest.mark.exhaustive
def test_a_second_signal_does_not_wait_for_what_is_drawn(base: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text(
        "import time\n\n\ndef f(completions, trainer_state, **_):\n"
        "    time.sleep(20 * (trainer_state.global_step == 1))\n    return [1.0] * len(completions)\n"
    )

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not (Path(base["out"]) / "rollouts" / "step-000001.parquet").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(2):
            time.sleep(0.3)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    began = time.monotonic()
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(base, ahead=1, reward=f"{file}:f")
    thread.join()
    assert time.monotonic() - began < 15
    assert [p.name for p in (Path(base["out"]) / "checkpoints").iterdir()] == ["step-000001"]


@pytest.fixture
def slow_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling takes longer than an update, in pieces of two tokens."""
    monkeypatch.setattr(detached, "CHUNK", 2)
    real = NativeSession.next_unless

    def slow(self: NativeSession, stop: Any) -> Any:
        time.sleep(0.004)
        return real(self, stop)

    monkeypatch.setattr(NativeSession, "next_unless", slow)


def test_rollouts_in_flight_go_on_with_newer_weights_and_say_which(
    base: dict[str, Any], slow_sampler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    step = module.one_step

    def one_step(training: Any) -> Any:
        result = step(training)
        drew = [[s.version for s in r.segments if s.writer == "policy" and len(s)] for r in result.rollouts]
        assert all(each == sorted(each) for each in drew)
        seen.extend(map(set, drew))
        return result

    monkeypatch.setattr(module, "one_step", one_step)
    result = run(base, ahead=1, in_flight="continue", steps=6, max_new_tokens=16, logit_bias={1: -100.0})
    assert any(len(versions) > 1 for versions in seen)
    assert all(row["rollouts/age_max"] <= 1 for row in result.metrics)
    assert any(0 < row["rollouts/age/0"] < 1 for row in result.metrics[1:])


def test_rollouts_in_flight_end_with_the_weights_and_count_as_truncated(
    base: dict[str, Any], slow_sampler: None
) -> None:
    result = run(base, ahead=1, in_flight="partial", steps=6, max_new_tokens=16, logit_bias={1: -100.0})
    assert len(result.metrics) == 6
    lengths = [row["completion/length_mean"] for row in result.metrics]
    # No stop token can be drawn, so all that is shorter than 16 was ended by newer weights.
    assert lengths[0] == 16
    assert min(lengths) < 16
    assert all(row["completion/truncated"] == 1 and row["rollouts/age_max"] <= 1 for row in result.metrics)


def test_what_goes_on_needs_someone_to_be_ahead_and_no_stop_strings(base: dict[str, Any]) -> None:
    for what in ("continue", "partial"):
        refused(base, "takes --ahead 1 or more", ahead=0, in_flight=what)
    refused(base, "a stop string can lie across two", in_flight="continue", stop=["."])


@pytest.mark.slow
def test_a_run_that_is_two_steps_ahead_learns(base: dict[str, Any], micro_root: Path) -> None:
    """The means are over 512 rollouts each, so the standard error of their difference is below 0.032."""
    given = {**base, **micro.CONFIG, "model": str(micro.folder(micro_root)), "out": base["out"], "ahead": 2}
    metrics = run(given, steps=40, prompts_per_step=8, group_size=8, lr=3e-3, record="none", doctor=False).metrics
    rewards = [row["reward/mean"] for row in metrics]
    assert sum(rewards[-8:]) / 8 - sum(rewards[:8]) / 8 > 0.2
    assert {row["rollouts/age_max"] for row in metrics[2:]} == {2.0}
