"""Two ranks, each with a part of the policy, against one process: the same gradients, the same updates, half the memory."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.distributed.sharding import shard, twin
from cohort.errors import UsageError
from tests.distributed.launching import LONG, run_on_ranks
from tests.distributed.sharding_ranks import OPTIMIZERS, TENSOR, chosen, name_of
from tests.helpers import tiny_policy

Report = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Name of a check -> what each rank found."""
    return run_on_ranks("tests.distributed.sharding_ranks", tmp_path_factory.mktemp("sharding"))


def same_gradient(found: list[dict[str, Any]], float64: bool) -> None:
    for rank in found:
        assert rank["gradient"] <= (1e-9 if float64 else 2e-6)
        assert rank["reference"] <= (1e-9 if float64 else 2e-5)
    # The case that the ways are made for.
    assert found[0]["passes"] > found[1]["passes"]


@pytest.mark.parametrize("case", chosen(False), ids=name_of)
def test_the_gradient_is_that_of_one_process(report: Report, case: dict[str, Any]) -> None:
    same_gradient(report[f"gradient {name_of(case)}"], case["float64"])


@pytest.mark.exhaustive
def test_the_gradient_is_that_of_one_process_in_every_combination(tmp_path: Any) -> None:
    found = run_on_ranks("tests.distributed.sharding_ranks", tmp_path, "everything", limit=LONG)
    for case in chosen(True):
        same_gradient(found[f"gradient {name_of(case)}"], case["float64"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_updates_are_those_of_one_process(report: Report, name: str) -> None:
    checks = [found for check, found in report.items() if check.startswith(f"steps {name} ")]
    assert checks
    for found in checks:
        assert found[0]["norms"] == found[1]["norms"]
        for rank in found:
            assert rank["weights"] <= 1e-9
            norms = rank["norms"]
            assert norms[1::2] == pytest.approx(norms[::2], rel=1e-12)


@pytest.mark.parametrize("case", TENSOR, ids=name_of)
def test_ranks_that_share_layers_give_the_gradient_of_one_process(report: Report, case: dict[str, Any]) -> None:
    for rank in report[f"tensor {name_of(case)}"]:
        assert rank["gradient"] <= (1e-9 if case["float64"] else 2e-6)
        assert rank["reference"] <= (1e-9 if case["float64"] else 2e-5)


def test_ranks_that_share_layers_make_the_updates_of_one_process(report: Report) -> None:
    for rank in [*report["tensor steps"], *report["tensor noise"]]:
        assert rank["weights"] <= 1e-9
        assert rank["norms"][1::2] == pytest.approx(rank["norms"][::2], rel=1e-12)
        assert 0.45 <= rank["state"] <= 0.55
    assert all(rank["published"] and rank["loaded"] for rank in report["tensor published"])


def test_a_rank_holds_half_of_the_optimizers_state(report: Report) -> None:
    for found in (report["steps adamw optimizer"], report["steps stosignsgd parameters"]):
        assert sum(rank["state"] for rank in found) == pytest.approx(1.0, abs=0.01)
        assert all(0.45 <= rank["state"] <= 0.55 for rank in found)


@pytest.mark.parametrize("way", ["optimizer", "parameters"])
def test_small_updates_of_half_precision_are_kept_in_parts_of_masters(report: Report, way: str) -> None:
    for rank in report[f"half {way}"]:
        assert rank["dtypes"] == ["torch.bfloat16", "torch.float32"]
        assert 0 < rank["moved"] < 1e-5
        assert rank["rounded"]


def test_a_failed_pass_of_one_rank_is_not_counted(report: Report) -> None:
    assert all(rank["gradient"] <= 2e-6 for rank in report["again"])
    assert [rank["tries"] for rank in report["again"]] == [1, 2]


@pytest.mark.parametrize("kind", ["whole", "lora"])
def test_weights_go_to_a_whole_policy_and_back(report: Report, kind: str) -> None:
    for rank in report[f"published {kind}"]:
        assert rank["published"]
        assert rank["loaded"]
        assert 0.45 <= rank["share"] <= 0.55


def test_what_is_no_language_model_is_refused() -> None:
    class Table:
        pass

    for refused in (lambda: twin(Table()), lambda: shard(Table(), None)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="Table is no language model"):
            refused()


def test_a_twin_has_weights_of_its_own_and_takes_what_the_policy_was_given() -> None:
    policy = tiny_policy("gemma2")
    policy.roles.make("teacher", model=tiny_policy().model)
    teacher = policy.roles.models["teacher"]
    other = twin(policy)
    assert other.roles.models["teacher"] is teacher  # type: ignore[attr-defined]
    assert "teacher" not in policy.roles.models
    pairs = list(zip(policy.model.parameters(), other.model.parameters(), strict=True))
    assert all(own.equal(copied) and own.data_ptr() != copied.data_ptr() for own, copied in pairs)
    # Tied weights stay tied.
    assert other.model.get_output_embeddings().weight is other.model.get_input_embeddings().weight
    other.roles.make("critic", kind="model")
    assert len(other.roles.trained()) == len(pairs) + 2
