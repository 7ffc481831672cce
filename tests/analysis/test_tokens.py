"""A rollout's tokens with all their numbers, what they can be coloured by, and why they are as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cohort import registry
from cohort.analysis.store import Run, open_run
from cohort.analysis.tokens import axes, colourings, explain, view
from cohort.errors import UsageError

# Two rollouts of a group that were trained on, and one that a filter removed.
TABLE: dict[str, list[Any]] = {
    "group": [7, 7, 8],
    "prompt": ["1+1=", "1+1=", "2+2="],
    "completion": ["ab", "c", "d"],
    "reward": [1.0, 0.0, 1.0],
    "shaped_reward": [0.75, 0.0, 1.0],
    "reward/exact": [1.0, 0.0, 1.0],
    "reward/length": [None, 0.5, None],
    "accuracy": [1.0, 0.0, 1.0],
    "trained": [True, True, False],
    "kept": ["trained", "trained", "removed before the advantage by mixed_accuracy"],
    "tokens": [[10, 11, 12], [13], [14]],
    "mask": [[1, 0, 1], [1], [1]],
    "pieces": [["a", "b", "<end>"], ["c"], ["d"]],
    "sampler_logp": [[-1.0, 0.0, -0.5], [-2.0], [-3.0]],
    "old_entropy": [[0.5, 0.0, 1.5], [1.0], None],
    "base_advantage": [[0.5, 0.0, 0.5], [-0.5], None],
    "advantage": [[0.5, 0.0, 1.0], [-0.5], None],
    "old_logp": [[-1.0, 0.0, -0.500001], [-2.0], None],
    "logp": [[-0.5, 0.0, -0.2], [-2.5], None],
    "ratio": [[1.648721, 0.0, 1.349858], [0.606531], None],
    "weight": [[0.25, 0.0, 0.25], [0.5], None],
    "ref_logp": [[-0.75, 0.0, -0.2], [-2.5], None],
    "policy_gradient": [[0.0, 0.0, -0.75], [0.25], None],
    "clipped": [[1, 0, 0], [0], None],
}
STRINGS = {"prompt", "completion", "kept"}


def arrow(columns: dict[str, list[Any]]) -> pa.Table:
    """With the types that the recorder writes."""
    lists = {
        "tokens": pa.int32(),
        "version": pa.int32(),
        "age": pa.int32(),
        "mask": pa.int8(),
        "clipped": pa.int8(),
        "pieces": pa.string(),
    }
    out = {}
    for name, values in columns.items():
        nested = any(isinstance(value, list) for value in values)
        kind = pa.list_(lists.get(name, pa.float32())) if nested else pa.float32()
        out[name] = pa.array(values, None if name in STRINGS | {"group", "trained"} else kind)
    return pa.table(out)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make(tmp_path, TABLE)


def make(tmp_path: Path, columns: dict[str, list[Any]], method: str = "dapo+gtpo:credit") -> Run:
    folder = tmp_path / "runs" / "a"
    (folder / "rollouts").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": method}))
    (folder / "metrics.jsonl").write_text('{"step": 4}\n')
    pq.write_table(arrow(columns), folder / "rollouts" / "step-000004.parquet")
    return open_run(folder)


def test_a_rollout_has_its_tokens_with_their_numbers(run: Run) -> None:
    found = view(run, 4, 0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["run"], found["step"], found["index"], found["method"]) == ("a", 4, 0, "dapo+gtpo:credit")
    assert found["note"] == ""
    assert found["rollout"]["completion"] == "ab"
    assert found["rollout"]["components"] == {"exact": 1.0, "length": None}
    assert found["group"] == {
        "id": 7,
        "size": 2,
        "rows": [0, 1],
        "correct": 1,
        "mean": 0.375,
        "std": 0.375,
        "low": 0.0,
        "high": 0.75,
    }
    assert [token["piece"] for token in found["tokens"]] == ["a", "b", "<end>"]
    assert found["tokens"][2] == {
        "index": 2,
        "id": 12,
        "mask": 1,
        "piece": "<end>",
        "sampler_logp": -0.5,
        "old_entropy": 1.5,
        "base_advantage": 0.5,
        "advantage": 1.0,
        "old_logp": -0.500001,
        "logp": -0.2,
        "ratio": 1.349858,
        "weight": 0.25,
        "ref_logp": -0.2,
        "policy_gradient": -0.75,
        "clipped": 0,
        "reference": 0.0,
        "mismatch": pytest.approx(-1e-6, rel=0.1),
    }
    # Where the policy chose nothing there is nothing to compare.
    assert not {"reference", "mismatch"} & set(found["tokens"][1])


def test_each_axis_that_acted_has_its_line_with_the_numbers(run: Run) -> None:
    lines = explain(run, view(run, 4, 0), 2)
    papers = {name: registry.recipe(name).paper for name in ("dapo", "gtpo")}
    assert [line.split(" ")[0] for line in lines] == [
        "reward",
        "shaping",
        "advantage",
        "credit",
        "ratio",
        "surrogate",
        "aggregation",
        "so",
        "sampler-trainer",
    ]
    reward, shaping, advantage, credit, ratio, surrogate, aggregation, push, mismatch = lines
    assert reward == "reward 1 (exact 1)"
    assert shaping == f"shaping [dapo, {papers['dapo']}: soft_overlong]: 1 -> 0.75"
    assert advantage == (
        "advantage [default: zscore(eps=1e-06, ddof=0)]: +0.5; the group's 2 rewards have mean 0.375, spread 0.375"
    )
    assert credit.startswith(f"credit [gtpo, {papers['gtpo']}: conflict_credit(w_pos=2, ")
    assert credit.endswith("]: +0.5 -> +1 (x 2)")
    assert ratio == "ratio [default: token]: 1.35; log-probability -0.5 before, -0.2 at the last update"
    assert (
        surrogate
        == f"surrogate [dapo, {papers['dapo']}: ppo_clip(low=0.2, high=0.28)]: derivative by the log-probability -3"
    )
    assert aggregation == f"aggregation [dapo, {papers['dapo']}: token_mean]: weight 0.25"
    assert (
        push == "so the update pushed this token's log-probability up (policy gradient -0.75, 100.0% of the rollout's)"
    )
    assert mismatch == "sampler-trainer mismatch -1.01e-06 nats, rounding"


def test_a_token_of_earlier_weights_says_so(tmp_path: Path) -> None:
    drawn = {"version": [[3, 0, 5], [5], [5]], "age": [[2, 0, 0], [0], [0]]}
    run = make(tmp_path, {**TABLE, **drawn})
    found = view(run, 4, 0)
    assert [(token.get("version"), token.get("age")) for token in found["tokens"]] == [(3, 2), (None, None), (5, 0)]
    stale, _, fresh = (explain(run, found, i)[-1] for i in range(3))
    assert stale == "drawn 2 update(s) before the weights of this step; since then it moved by 0 nats"
    assert fresh == "sampler-trainer mismatch -1.01e-06 nats, rounding"
    (age,) = [each for each in colourings(found) if each["name"] == "age"]
    assert (age["kind"], age["low"], age["high"]) == ("sequential", 0, 2)
    # Of what was left out, ages alone are no numbers of the update.
    assert "the entropies of its tokens" in view(run, 4, 2)["note"]


def test_clipped_pushed_down_not_chosen_and_left_out_are_said(run: Run, tmp_path: Path) -> None:
    found = view(run, 4, 0)
    clipped = explain(run, found, 0)
    assert any(
        line.endswith("ppo_clip(low=0.2, high=0.28)]: clipped, so no gradient in spite of its advantage")
        for line in clipped
    )
    assert "so the policy loss did not move this token by itself" in clipped
    (masked,) = explain(run, found, 1)
    assert masked.startswith("mask: not chosen by the policy")
    assert any("pushed this token's log-probability down" in line for line in explain(run, view(run, 4, 1), 0))
    dropped = view(run, 4, 2)
    assert dropped["tokens"] == [{"index": 0, "id": 14, "mask": 1, "piece": "d", "sampler_logp": -3.0}]
    assert explain(run, dropped, 0)[-1] == (
        f"filter [dapo, {registry.recipe('dapo').paper}: mixed_accuracy(max_rounds=10)]: the rollout was not trained on "
        "(removed before the advantage by mixed_accuracy)"
    )
    kept = make(tmp_path, TABLE, method="grpo")
    assert explain(kept, view(kept, 4, 0), 0)[-2].endswith(
        "a term of its own, which the policy gradient does not hold; the token is 0.25 nats likelier than under the reference"
    )


@pytest.mark.parametrize("name", registry.names())
def test_every_method_is_explained_from_its_recipe(tmp_path: Path, name: str) -> None:
    method = registry.method(name)
    columns = {k: v for k, v in TABLE.items() if method.objective is None or k not in ("ratio", "weight")}
    run = make(tmp_path, columns, method=name)
    known = axes(run)
    assert [(axis["axis"], axis["function"]) for axis in known] == [
        (axis, stage.name) for axis, stage in method.stages()
    ]
    own = [axis for axis in known if axis["source"]]
    assert {axis["paper"] for axis in own} <= {registry.recipe(name).paper}
    assert all(axis["about"] for axis in known)
    lines = explain(run, view(run, 4, 0), 2)
    acting = {"advantage", "credit", "ratio", "surrogate", "objective", "regularizer"} | (
        {"aggregation"} if method.objective is None else set()
    )
    for axis in known:
        if axis["axis"] in acting:
            (line,) = [line for line in lines if line.startswith(f"{axis['axis']} [")]
            assert f"{axis['source'] or 'default'}" in line
            assert axis["function"] in line


def test_a_method_that_was_made_in_python_is_said_to_be_unknown(tmp_path: Path) -> None:
    for name in ("method", "gone.py:mine"):
        run = make(tmp_path, TABLE, method=name)
        assert axes(run) == []
        lines = explain(run, view(run, 4, 0), 2)
        assert lines[0].startswith(f"The method '{name}' cannot be found by its name")
        assert "advantage: +0.5; the group's 2 rewards have mean 0.375, spread 0.375" in lines
        assert "credit: +0.5 -> +1 (x 2)" in lines


def test_rollouts_that_were_recorded_with_less_are_read_too(tmp_path: Path) -> None:
    old = ("group", "prompt", "completion", "reward", "reward/exact", "accuracy", "trained", "tokens", "mask")
    names = (*old, "sampler_logp", "logp", "advantage", "policy_gradient")
    run = make(tmp_path, {name: TABLE[name] for name in names})
    found = view(run, 4, 0)
    assert [token["piece"] for token in found["tokens"]] == ["<10>", "<11>", "<12>"]
    assert found["note"] == "The run did not store, of this rollout, the texts of its tokens (see record)."
    assert found["group"]["mean"] == 0.5
    lines = explain(run, found, 2)
    assert any(line.startswith("advantage [") and ": +1; the group's" in line for line in lines)
    assert any("pushed this token's log-probability up" in line for line in lines)
    assert not any(line.startswith(("credit", "ratio", "sampler-trainer")) for line in lines)

    run = make(tmp_path, {name: TABLE[name] for name in old})
    assert explain(run, view(run, 4, 0), 0)[-1] == "what the update made of this rollout's tokens is not stored"
    assert "what the update made of them" in view(run, 4, 0)["note"]
    run = make(tmp_path, {name: TABLE[name] for name in old[:-2]})
    found = view(run, 4, 0)
    assert found["tokens"] == colourings(found) == []
    assert found["note"].startswith("The run stored nothing of single tokens here")


def test_colours_are_of_what_is_there_with_a_scale_that_fits(run: Run) -> None:
    found = {each["name"]: each for each in colourings(view(run, 4, 0))}
    assert set(found) == {
        "advantage",
        "base_advantage",
        "policy_gradient",
        "logp",
        "old_logp",
        "sampler_logp",
        "old_entropy",
        "ratio",
        "clipped",
        "mask",
        "weight",
        "ref_logp",
        "reference",
        "mismatch",
    }

    def scale(name: str) -> tuple[Any, ...]:
        return tuple(found[name][key] for key in ("kind", "low", "center", "high"))

    assert scale("advantage") == ("diverging", -1.0, 0.0, 1.0)
    assert scale("logp") == ("sequential", -0.5, None, 0.0)
    assert scale("old_entropy") == ("sequential", 0.0, None, 1.5)
    assert scale("clipped") == ("binary", 0.0, None, 1.0)
    # A ratio is read from 1, and rounding is no mismatch.
    assert scale("ratio")[2] == 1.0
    assert scale("mismatch") == ("diverging", -0.001, 0.0, 0.001)
    assert all(each["label"] and each["about"] for each in found.values())


def test_one_outlier_does_not_make_all_other_colours_pale(tmp_path: Path) -> None:
    count = 200
    columns = {**{name: TABLE[name][:1] for name in ("group", "reward", "trained")}}
    values = [0.01] * (count - 1) + [50.0]
    run = make(tmp_path, {**columns, "tokens": [[1] * count], "mask": [[1] * count], "advantage": [values]})
    (found,) = [each for each in colourings(view(run, 4, 0)) if each["name"] == "advantage"]
    assert (found["low"], found["high"]) == (-0.01, 0.01)


def test_what_is_not_there_is_said(run: Run) -> None:
    with pytest.raises(UsageError, match=r"a, step 4: there is no rollout 3; it has 0 to 2"):
        view(run, 4, 3)
    with pytest.raises(UsageError, match=r"a: no rollouts of step 5 are stored; the run has those of 1 steps, 4 to 4"):
        view(run, 5, 0)
    with pytest.raises(UsageError, match=r"there is no token 3; the rollout has 3 with numbers"):
        explain(run, view(run, 4, 0), 3)
    path = run.rollouts_folder / "step-000004.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"step-000004.parquet cannot be read and is left out"):
        view(run, 4, 0)
