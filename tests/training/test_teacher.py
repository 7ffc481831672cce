"""A model that a method learns from: given, refused, and learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.toy import toy
from cohort.training import sft
from tests import micro

MODES = {
    "distribution": "opd",
    "clip": "opd(mode='policy-gradient')",
    "bound": "opd(mode='policy-gradient', surrogate='probability-bound', advantage_clamp=5.0)",
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wider model than the student that knows the answers."""
    policy = toy(seed=3, hidden=48, layers=1, heads=2)
    pairs = [
        (
            policy.renderer.encode(policy.renderer.render(letter), start=True),
            sft.completion_tokens(policy.renderer, micro.answer(letter)),
        )
        for letter in micro.LETTERS
        for _ in range(20)
    ]
    sft.fine_tune(policy, pairs, steps=60, batch_size=48, lr=1e-2, warmup=5)
    folder = tmp_path_factory.mktemp("teacher") / "model"
    policy.save(folder)
    return folder


@pytest.mark.parametrize("method", MODES.values(), ids=MODES)
def test_the_student_learns_what_the_teacher_knows(micro_root: Path, teacher: Path, method: str) -> None:
    # The rewards say nothing.
    with micro.ready(micro_root, method, teacher=str(teacher), reward=["length"]) as (setup, optimizer, progress):
        before = micro.success(setup.policy)
        held = setup.policy.roles.models["teacher"].state_dict()
        weights = {name: value.clone() for name, value in held.items()}
        micro.train(setup, optimizer, progress)
        after = micro.success(setup.policy)
        assert all(value.equal(weights[name]) for name, value in held.items())
    assert after - before > 0.2, f"{before:.3f} -> {after:.3f}"


def test_a_teacher_that_is_the_policy_teaches_nothing(micro_root: Path) -> None:
    itself = str(micro.folder(micro_root))
    with micro.ready(micro_root, "opd", teacher=itself, steps=1) as (setup, optimizer, progress):
        (step,) = micro.train(setup, optimizer, progress)
    assert abs(step.metrics["loss"]) < 1e-6
    assert step.metrics["grad_norm"] < 1e-4


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("opd", {}, "learns from another model: name it with --teacher"),
        ("grpo", {"teacher": "toy"}, "learns from no other model: leave it out"),
        ("sdpo", {"teacher": "toy"}, "learns from no other model: leave it out"),
        ("opd", {"teacher": "/no/such/model"}, "no such folder"),
    ],
)
def test_what_is_missing_or_of_no_use_is_told(micro_root: Path, method: str, given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message), micro.ready(micro_root, method, **given):
        pass


def test_a_teacher_of_other_tokens_is_refused(micro_root: Path, teacher: Path, tmp_path: Path) -> None:
    other = CausalLM.load(str(teacher))
    other.renderer.tokenizer.add_tokens(["<new>"])
    other.model.resize_token_embeddings(len(other.renderer.tokenizer))
    other.save(tmp_path / "other")
    with (
        pytest.raises(UsageError, match=r"reads other tokens than the policy.*'<new>'"),
        micro.ready(micro_root, "opd", teacher=str(tmp_path / "other")),
    ):
        pass
