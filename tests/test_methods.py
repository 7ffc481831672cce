"""Composition of methods, and expressions for it."""

from __future__ import annotations

import pkgutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import cohort
from cohort import axes, registry
from cohort.axes import advantage, aggregation, ratio, regularizer, surrogate
from cohort.axes.filter import mixed_accuracy
from cohort.axes.objective import GradedRewardError
from cohort.methods import AXES, ConflictError, Method, MethodError, use
from cohort.methods.ranges import check
from cohort.registry import method
from cohort.types import Batch
from cohort.types.declare import hooks, needs
from tests.helpers import random_batch
from tests.traits import batch_for, gradients, info_for, rollouts_for, trait, with_leaves


def test_many_axes_append_and_one_axes_are_taken() -> None:
    both = method("dapo") | method("gdpo")
    assert both.name == "dapo+gdpo"
    assert both.advantage is not None
    assert both.advantage.name == "decoupled"
    assert [s.name for s in both.filter] == ["mixed_accuracy"]
    assert both.surrogate == method("dapo").surrogate
    three = method("dapo+grpo-lambda+mc-grpo:filter")
    assert [s.name for s in three.shaping] == ["soft_overlong", "short_if_solved"]
    assert [s.name for s in three.filter] == ["mixed_accuracy", "without_pivot"]


def test_the_default_is_neutral() -> None:
    """Composing with plain GRPO adds only its KL term, on either side."""
    for expression in ("grpo+gdpo", "gdpo+grpo"):
        composed = method(expression)
        assert composed.stage("advantage").name == "decoupled"
        assert [s.name for s in composed.regularizer] == ["kl"]
    assert method("grpo+grpo").regularizer == method("grpo").regularizer


def test_a_conflict_names_axis_and_both_methods_and_a_way_out() -> None:
    with pytest.raises(ConflictError) as caught:
        method("dapo+etr")
    message = str(caught.value)
    assert "'surrogate'" in message
    assert "'dapo'" in message
    assert "'etr'" in message
    for suggestion in ("dapo:-surrogate+etr", "dapo+etr:-surrogate"):
        assert suggestion in message
        assert method(suggestion).filled


def test_an_objective_conflicts_with_another_ratio_or_surrogate() -> None:
    with pytest.raises(ConflictError, match="objective of its own"):
        method("disco+gspo")
    with pytest.raises(ConflictError, match="objective of its own"):
        method("dapo+disco")
    assert method("disco+gdpo").objective is not None


def test_single_axes_can_be_picked_or_left_out() -> None:
    picked = method("dapo:filter,aggregation")
    assert picked.filled == ("filter", "aggregation")
    assert set(method("dapo:-filter").filled) == set(method("dapo").filled) - {"filter"}
    with pytest.raises(MethodError, match="does not fill the axis 'credit'"):
        method("dapo:credit")
    with pytest.raises(MethodError, match="there is no axis 'advantages'"):
        method("dapo:advantages")
    with pytest.raises(MethodError, match="both picks axes and leaves some out"):
        method("dapo:filter,-shaping")


def test_hyperparameters_are_overridden() -> None:
    stage = method("dapo(clip_high=0.3)+gdpo(weights=(1, 0.5))").surrogate
    assert stage is not None
    assert stage.hyper["high"] == 0.3
    assert method("dapo", clip_high=0.3).surrogate == stage
    assert cohort.method("dapo", clip_high=0.3).name == "dapo(clip_high=0.3)"


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("gpro", "did you mean"),
        ("grpo(clip_low=3)", r"clip_low=3 is out of range; it must lie in \[0, 1\]"),
        ("grpo(clip_low='a')", "must be a number"),
        ("grpo(foo=1)", "has no hyperparameter 'foo'"),
        ("grpo(kl='k4')", "is not one of 'k1', 'k2', 'k3'"),
        ("grpo(0.2)", "given by name"),
        ("dapo(", "no method expression"),
        ("dapo++gdpo", "no method expression"),
        ("", "no method expression"),
        ("etr(scale_max=6)", "must stay below 1"),
        ("missing.py:name", "there is no file missing.py"),
        ("recipe.py", "say which of its functions"),
    ],
)
def test_bad_expressions_say_what_is_wrong(expression: str, says: str) -> None:
    with pytest.raises(MethodError, match=says):
        method(expression)


OWN = '''
from __future__ import annotations
import typing
import torch
import cohort
from cohort import Method, use

def sign(batch):
    """A_i = sign(r_i - mean)."""
    return torch.sign(batch.rewards - batch.rewards.mean())

def mine(*, scale: float = 1.0):
    """My own method."""
    return Method(advantage=use(sign))

@cohort.recipe(title="Declared", paper="none", confidence="exact")
def declared(*, x: typing.Annotated[float, "(0, 1]"] = 0.5, y: OnlyForTypeCheckers = None):
    return Method(advantage=use(sign))

def wrong():
    return 3
'''


def test_a_method_from_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "my_method.py"
    file.write_text(OWN)
    own = method(f"dapo+{file}:mine(scale=2.0)")
    assert own.stage("advantage").name == "sign"
    assert own.advantage is not None
    assert own.advantage.source == "mine(scale=2.0)"
    assert method(f"{file}:mine:advantage").filled == ("advantage",)
    with pytest.raises(MethodError, match=r"must lie in \(0, 1\]"):
        method(f"{file}:declared(x=2)")
    with pytest.raises(MethodError, match=r"must return a cohort.Method"):
        method(f"{file}:wrong")
    with pytest.raises(MethodError, match="has no function 'absent'"):
        method(f"{file}:absent")


def test_a_method_made_in_python() -> None:
    made = Method(
        advantage=use(advantage.centred), aggregation=use(aggregation.token_mean), filter=(use(mixed_accuracy),)
    ).named("mine")
    assert (made | method("etr")).filled == ("filter", "advantage", "surrogate", "aggregation")
    with pytest.raises(MethodError, match="takes one function"):
        Method(advantage=(use(advantage.centred),))  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="takes a tuple"):
        Method(filter=use(mixed_accuracy))  # type: ignore[arg-type]
    with pytest.raises(MethodError, match="has no hyperparameter lo"):
        use(surrogate.ppo_clip, lo=0.1)


def test_over_takes_what_is_left_alone_from_a_host() -> None:
    hosted = method("gdpo").over(method("dapo"))
    assert hosted.stage("advantage").name == "decoupled"
    assert hosted.surrogate == method("dapo").surrogate
    assert method("disco").over(method("dapo")).surrogate is None


def test_needs_follow_the_hyperparameters() -> None:
    assert "ref_logp" in method("grpo").needs(loss=True)
    assert "ref_logp" not in method("grpo(kl_beta=0.0)").needs(loss=True)
    assert "entropy" in method("dhpo").needs(loss=True)
    assert "entropy" not in method("dhpo(mixing='average')").needs(loss=True)
    assert method("rloo").needs(loss=False) == {"old_logp", "ref_logp"}
    assert method("s-grpo").provides == {"exit_position"}
    assert method("sage(solution='answer')").columns == {"answer": "hint_search"}


def test_every_range_is_read_and_holds_its_default() -> None:
    for name in registry.names():
        recipe = registry.recipe(name)
        assert {*recipe.hints} >= {*recipe.parameters}, name
        for key, allowed in recipe.ranges.items():
            check(name, key, recipe.parameters[key].default, allowed)
    assert registry.recipe("grpo").ranges["clip_low"] == "[0, 1]"


def test_every_method_fills_an_axis_and_says_where_it_comes_from() -> None:
    for name in registry.names():
        recipe = registry.recipe(name)
        made = recipe()
        # A method may be all in its rewards.
        assert any(getattr(made, axis) for axis in AXES) or recipe.rewards, name
        assert recipe.title, name
        assert "arXiv" in recipe.paper, name
        assert recipe.idea, name
        assert recipe.confidence.startswith(("exact", "reconstructed: ")), name
        assert recipe.paper.split(",")[0] in recipe.doc, name


@pytest.mark.parametrize("first", registry.names())
def test_every_pair_composes_or_is_refused_with_the_axis_named(first: str) -> None:
    names = registry.names()
    for second in names[names.index(first) + 1 :]:
        try:
            made = method(first) | method(second)
        except ConflictError as refusal:
            assert any(f"'{axis}'" in str(refusal) for axis in AXES), (first, second)
            continue
        assert set(made.filled) <= set(method(first).filled) | set(method(second).filled)
        batch, leaves = with_leaves(made, batch_for(first, second, seed=2))
        bound = made.bind(made.init(size=3), info_for(batch, first, second))
        bound = bound.with_states(bound.on_rollouts(batch, rollouts_for(batch)))
        try:
            loss = bound.loss(bound.prepare(batch).batch).total
        except GradedRewardError as refusal:
            # One shapes graded rewards, the other is defined for 0 and 1; it says how to go on.
            assert "threshold" in str(refusal)
            continue
        assert torch.isfinite(loss), (first, second)
        grads = gradients(loss, leaves)
        assert all(torch.isfinite(grad).all() for grad in grads.values()), (first, second)
        quiet = trait(first, "QUIET") or trait(second, "QUIET")
        assert quiet or any(grad.any() for grad in grads.values()), (first, second)


def test_stateful_functions_keep_their_state_under_their_own_key() -> None:
    both = method("fg-expo") | method("knapsack")
    states = both.init(size=5)
    assert set(states) == {"curriculum/gaussian", "budget/knapsack_budget", "regularizer/adaptive_kl"}
    rows, after, _ = both.bind(states).pick(count=3, rng=torch.Generator().manual_seed(0))
    assert len(set(rows.tolist())) == 3
    assert set(after) == set(states)


def test_a_scalar_regularizer_must_say_that_it_couples() -> None:
    @needs("ref_logp")
    def scalar(batch: Batch) -> torch.Tensor:
        return (batch.logp - batch.ref_logp).mean()

    made = Method(regularizer=(use(scalar),))
    batch = made.bind().prepare(random_batch(1)).batch
    assert made.bind().loss(batch).total.ndim == 0
    with pytest.raises(MethodError, match="couples=True"):
        made.bind().loss(batch.replace(weight=made.bind().weights(batch)))


def test_the_loss_is_the_sum_of_its_parts() -> None:
    made = method("grpo(kl_beta=0.1)")
    batch = made.bind().prepare(random_batch(4)).batch
    loss = made.bind().loss(batch)
    assert torch.allclose(loss.total, loss.policy + loss.regularizers["kl"])
    by_hand = surrogate.ppo_clip(batch, ratio.token(batch), batch.advantages) * aggregation.sequence_mean(batch)
    kl = regularizer.kl(batch, beta=0.1) * aggregation.sequence_mean(batch)
    assert torch.allclose(loss.total, by_hand.sum() + kl.sum())


def test_an_axis_is_one_entry_of_the_table_and_a_slot_of_every_method() -> None:
    slots = [field.name for field in fields(Method) if field.name not in ("name", "requires")]
    assert slots == list(AXES)
    # Others fill several axes at once, with what one of them finds and another reads.
    several = {"summaries", "trees", "kinds", "served", "repair", "reflection", "intervention", "steering"}
    assert {module.name for module in pkgutil.iter_modules(axes.__path__)} == {*AXES, *several}
    for name, axis in AXES.items():
        empty = getattr(Method(), name)
        assert empty == (() if axis.kind == "many" else None)
        if axis.default is not None:
            assert Method().stage(name) is axis.default


def test_what_a_function_takes_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(0)
    method = registry.method("dapo+gdpo")
    info = info_for(batch)

    def loss() -> torch.Tensor:
        bound = method.bind(info=info)
        return bound.loss(bound.prepare(batch).batch).total

    expected = loss()
    monkeypatch.setattr("cohort.methods.stage.parameters", None)
    assert torch.equal(loss(), expected)


def test_a_builtin_as_a_hook_is_refused() -> None:
    @hooks(init=dict)
    def mine(batch: Batch) -> torch.Tensor:
        return batch.rewards

    with pytest.raises(MethodError, match="does not say what it takes"):
        use(mine).all_hyper  # noqa: B018
