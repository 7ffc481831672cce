"""A continued run looks at what it continues with: data, functions, weights and settings are those of before, or it says."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cohort.analysis.configuration import flat
from cohort.errors import Renamed, UsageError
from cohort.training import checkpoint
from cohort.training.config import from_file, make_config
from cohort.training.display import Display
from cohort.training.folder import choose_folder
from cohort.training.inputs import carried, places
from cohort.training.run import train
from tests.training.conftest import ROWS
from tests.training.test_run import run

REWARD = (
    "import helper\nimport parts.deep\n\n\n"
    "def f(completions, **_):\n    return [float(len(c) % helper.TWO) for c in completions]\n"
)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def files(base: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A run of two steps with everything that it computes with in files."""
    write(tmp_path / "rows.jsonl", ROWS[:12])
    write(tmp_path / "held.jsonl", ROWS[12:16])
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "helper.py").write_text("TWO = 2\n")
    (tmp_path / "parts").mkdir()
    imports = {"__init__": "", "deep": "from . import near\nimport base\n", "near": ""}
    for name, text in imports.items():
        (tmp_path / "parts" / f"{name}.py").write_text(text)
    (tmp_path / "base.py").write_text("")
    (tmp_path / "mine.py").write_text("import cohort\n\n\ndef mine():\n    return cohort.method('grpo+knapsack')\n")
    shutil.copytree(base["model"], tmp_path / "model")
    keys = {
        "data": str(tmp_path / "rows.jsonl"),
        "eval_data": str(tmp_path / "held.jsonl"),
        "steps": 2,
        "reward": f"{tmp_path}/reward.py:f",
        "method": f"{tmp_path}/mine.py:mine",
        "model": str(tmp_path / "model"),
    }
    run({**base, **keys})
    return {**base, **keys, "steps": 3}


def told(config: dict[str, Any], **changes: Any) -> list[str]:
    said: list[str] = []
    display = Display(quiet=True)
    display.log = said.append  # type: ignore[method-assign]
    train(make_config({**config, **changes}), resume=True, accept_changes=True, display=display)
    return said


def appended(name: str) -> Callable[[Path], None]:
    return lambda where: (where / name).write_text((where / name).read_text() + "# edited\n") and None


def rows(name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], None]:
    def edit(where: Path) -> None:
        write(where / name, change([json.loads(line) for line in (where / name).read_text().splitlines()]))

    return edit


def another_model(where: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = where / "model" / "model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] * 1.001}, path, metadata={"format": "pt"})


def setting(name: str, **values: Any) -> Callable[[Path], None]:
    def edit(where: Path) -> None:
        path = where / "model" / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return edit


EDITS = {
    "other prompts": (
        rows("rows.jsonl", lambda r: [{**r[0], "prompt": "7+7="}, *r[1:]]),
        r"1 are new \(the first: prompt 1\)",
    ),
    "fewer prompts": (rows("rows.jsonl", lambda r: r[:7]), r"of 7 prompts \(there were 12\) 5 are gone"),
    "another order": (rows("rows.jsonl", lambda r: r[::-1]), "the prompts stand in another order"),
    "another column": (rows("rows.jsonl", lambda r: [*r[:5], {**r[5], "answer": "x"}, *r[6:]]), "the first: prompt 6"),
    "other held-out data": (rows("held.jsonl", lambda r: r[1:]), "eval_data holds other problems"),
    "the reward": (appended("reward.py"), "reward.py was edited"),
    "what the reward imports": (appended("helper.py"), "helper.py was edited"),
    "the package of what it imports": (appended("parts/__init__.py"), "parts/__init__.py was edited"),
    "what that imports relative to itself": (appended("parts/near.py"), "parts/near.py was edited"),
    "what that imports from beside the reward": (appended("base.py"), "base.py was edited"),
    "the method": (appended("mine.py"), "mine.py was edited"),
    "the weights": (another_model, "model.safetensors .the model's weights. has other contents"),
    "the model's settings": (setting("config.json", rms_norm_eps=1e-3), "config.json of the model was edited"),
    "the tokenizer's settings": (
        setting("tokenizer_config.json", padding_side="left"),
        "tokenizer_config.json of the model was edited",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_was_changed_is_named_and_refused_unless_asked_for(
    files: dict[str, Any], tmp_path: Path, name: str
) -> None:
    edit, says = EDITS[name]
    edit(tmp_path)
    with pytest.raises(UsageError, match=f"was computed with other inputs: .*{says}.*--resume --accept-changes"):
        run(files, resume=True)
    said = told(files)
    assert any(line.startswith("  changed: ") for line in said)
    out = Path(files["out"])
    assert (out / "config-until-step-000002.yaml").is_file()
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    # What was accepted is what the run computes with from then on.
    assert len(run(files, steps=4, resume=True).metrics) == 4


def test_what_is_as_it_was_is_no_change(files: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n" + (tmp_path / "rows.jsonl").read_text())
    setting("config.json", transformers_version="4.0")(tmp_path)
    assert len(run(files, resume=True).metrics) == 3
    assert not list(Path(files["out"]).glob("config-until*"))


@pytest.mark.parametrize(
    "method", ["grpo+knapsack", "fg-expo", "spo-single-stream", "otc(memory=True)", "r2vpo(replay=2)", "pipo"]
)
def test_states_by_prompt_follow_their_prompts(base: dict[str, Any], method: str) -> None:
    if "otc" in method:
        pytest.importorskip("cohort.recipes.otc")
    base = {**base, "method": method, "reward": "format:[0-4]"}
    base = {**base, "group_size": 1, "prompts_per_step": 6} if method == "spo-single-stream" else base
    run(base, steps=3)
    fewer = [*ROWS[20:3:-1], {**ROWS[0], "prompt": "new"}]
    said = told(base, data=fewer, steps=6)
    assert any("are kept for 17 of 18 prompts" in line for line in said)


def test_values_by_prompt_are_moved_and_what_is_not_by_prompt_stays() -> None:
    import cohort

    method = cohort.method("spo-single-stream") | cohort.method("fg-expo:regularizer")
    before, after = (torch.tensor([[i] * 8 for i in ids], dtype=torch.uint8) for ids in ([1, 2, 3], [3, 9, 1, 8]))
    where = places(before, after)
    assert where.tolist() == [2, -1, 0, -1]
    old, new = method.init(size=3), method.init(size=4)
    (track,) = [key for key, state in old.items() if "drift" in state]
    (other,) = [key for key in old if key not in method.by_prompt]
    old[track] = {
        **old[track],
        "drift": torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64),
        "stored": {"0": "a", "1": "b"},
    }
    old[other] = {"accuracy": 0.75}
    states, anew = carried(method, old, new, where, 3)
    assert states[track]["drift"].tolist() == [0.3, 0.0, 0.1, 0.0]
    assert states[track]["stored"] == {"2": "a"}
    assert states[other] == {"accuracy": 0.75}
    assert anew == []


def test_a_folder_from_before_a_key_and_checksums_existed_is_continued(base: dict[str, Any]) -> None:
    out = run(base, steps=2).folder
    stored = flat(yaml.safe_load((out / "config.yaml").read_text()))
    for key in ("grad_clip", "min_p", "old_logp"):
        del stored[key]
    (out / "config.yaml").write_text(yaml.safe_dump(stored))
    root = out / "checkpoints"
    state = checkpoint.read_state(root / "step-000002")
    del state["inputs"], state["progress"]["mismatch"]
    shutil.move(root / "step-000002" / "model", out / "kept")
    shutil.rmtree(root)
    checkpoint.write(root, 2, lambda where: shutil.copytree(out / "kept", where), state, keep=2)
    assert len(run(base, steps=3, resume=True).metrics) == 3
    with pytest.raises(UsageError, match=r"grad_clip \(was 1.0, now 2.0\)"):
        run(base, steps=4, resume=True, grad_clip=2.0)


def test_settings_are_changed_where_a_checkpoint_allows_them(base: dict[str, Any]) -> None:
    out = run(base, steps=2).folder
    with pytest.raises(UsageError, match=r"lr \(was 0.001, now 0.002\).*--accept-changes"):
        run(base, steps=3, resume=True, lr=2e-3)
    assert "  changed: lr was 0.001, is 0.002" in told(base, steps=3, lr=2e-3)
    assert yaml.safe_load((out / "config.yaml").read_text())["optimisation"]["lr"] == 2e-3
    assert yaml.safe_load((out / "config-until-step-000002.yaml").read_text())["optimisation"]["lr"] == 1e-3
    # Larger steps with larger minibatches are taken over, and what that undoes is said.
    larger = told(base, steps=4, lr=2e-3, group_size=2 * int(make_config(base).sampling.group_size))
    assert any("With updates 2 and the same learning rate the minibatch stays" in line for line in larger)
    with pytest.raises(UsageError, match=r"lora \(was 0, now 2\); name another folder with --out$"):
        told(base, steps=4, lr=2e-3, lora=2)
    with pytest.raises(UsageError, match="--accept-changes goes with --resume"):
        train(make_config(base), accept_changes=True)


def test_a_checkpoint_of_another_run_is_refused(base: dict[str, Any], tmp_path: Path) -> None:
    run(base, steps=1)
    other = run(base, steps=2, method="ppo", out=str(tmp_path / "other")).folder
    shutil.copytree(other / "checkpoints" / "step-000002", Path(base["out"]) / "checkpoints" / "step-000002")
    with pytest.raises(UsageError, match="cannot be taken over"):
        run(base, steps=3, resume=True)


SAMPLE = Path(__file__).parents[1] / "samples" / "run-0.1" / "stopped"


def continued(**keys: Any) -> list[dict[str, Any]]:
    """Metrics of the steps that a run of before, in this folder, goes on with; nothing is said to be other or begun anew."""
    said: list[str] = []
    display = Display(quiet=True)
    display.log = said.append  # type: ignore[method-assign]
    expected = json.loads(Path("expected.json").read_text())["metrics"]
    result = train(make_config(from_file(Path("config.yaml")), {"out": None, **keys}), resume=True, display=display)
    assert any(re.fullmatch("continuing .* after step 2", line) for line in said)
    assert not [line for line in said if "changed" in line or "anew" in line or "checksums" in line]
    assert [row["step"] for row in result.metrics] == [1, 2, 3, 4]
    return [{key: row[key] for key in want} for row, want in zip(result.metrics[2:], expected, strict=True)]


@pytest.mark.parametrize("called", ["model", "nursery"])
def test_a_run_that_the_version_before_left_goes_on_as_it_would_have_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str
) -> None:
    """The configuration without sections, also with the name that the toy model had."""
    shutil.copytree(SAMPLE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / f"grpo+knapsack-{called}-3"
    folder.parent.mkdir()
    shutil.move("run", folder)
    written = (folder / "config.yaml").read_text().replace("model: model", f"model: {called}")
    (folder / "config.yaml").write_text(written)
    Path("config.yaml").write_text(written)
    monkeypatch.setattr("cohort.training.toy.folder", lambda log, report=None, name="toy": Path("model"))
    keys = {} if called == "model" else {"model": "toy"}
    expected = json.loads(Path("expected.json").read_text())["metrics"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", Renamed)
        found = continued(**keys)
    # Another processor may round otherwise; a loss is what is left of terms near 1, and rounds as these do.
    rounding = {"loss": 1e-7}
    assert found == [
        {key: pytest.approx(value, rel=1e-4, abs=rounding.get(key, 1e-12)) for key, value in row.items()}
        for row in expected
    ]
    assert (folder / "final" / "model.safetensors").is_file()


def test_a_new_run_of_a_renamed_model_is_named_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "grpo-nursery-2").mkdir(parents=True)
    config = make_config({})
    assert choose_folder(config, resume=False) == Path("runs/grpo-toy-1")
    assert choose_folder(config, resume=True) == Path("runs/grpo-nursery-2")
    (tmp_path / "runs" / "grpo-toy-1").mkdir()
    assert choose_folder(config, resume=True) == Path("runs/grpo-toy-1")
