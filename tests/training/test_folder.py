"""The user's files: nothing that a run did not write is deleted, overwritten or shared with another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cohort.errors import StorageError, UsageError
from cohort.files import save_into
from cohort.training import checkpoint, folder
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.recorder import Recorder
from cohort.training.run import train
from tests.training.test_run import run, same, weights


def everything(where: Path) -> dict[str, bytes]:
    return {str(p.relative_to(where)): p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file()}


def told(base: dict[str, Any], **changes: Any) -> list[str]:
    """Run with --resume; what was said."""
    said: list[str] = []
    display = Display(quiet=True)
    display.log = said.append  # type: ignore[method-assign]
    train(make_config({**base, **changes}), resume=True, display=display)
    return said


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["thesis.txt", "config.yaml", "src/metrics.jsonl", "metrics.jsonl", "step-000002"])
def test_a_folder_that_is_no_run_is_refused_and_stays_as_it_is(base: dict[str, Any], name: str, resume: bool) -> None:
    path = Path(base["out"]) / name
    path.parent.mkdir(parents=True)
    path.write_text("lr: 1\n")
    before = everything(Path(base["out"]))
    with pytest.raises(UsageError, match=r"already holds something .*but no run that --resume could continue"):
        run(base, resume=resume)
    assert everything(Path(base["out"])) == before


def test_what_an_attempt_left_is_moved_aside_and_named(base: dict[str, Any]) -> None:
    out = Path(base["out"])
    out.mkdir()
    (out / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "rew')
    (out / "notes.txt").write_text("mine")
    said = told(base)
    assert f"what an earlier attempt left there is kept in {out / 'attempt-1'}" in said
    assert f"{out} holds no checkpoint to continue from: the run begins at step 1" in said
    assert (out / "attempt-1" / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2, "rew'
    assert (out / "notes.txt").read_text() == "mine"
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_new_folder_says_too_that_nothing_is_continued(base: dict[str, Any]) -> None:
    assert any("the run begins at step 1" in line for line in told(base, steps=1))


def test_a_run_without_a_whole_checkpoint_is_refused_and_stays_as_it_is(base: dict[str, Any]) -> None:
    out = run(base, steps=2).folder
    (out / "checkpoints" / "step-000002" / "state.pt").write_bytes(b"\0")
    before = everything(out)
    with pytest.raises(UsageError, match=r"none of the checkpoints .* is whole \(step-000002: state.pt has 1 bytes"):
        run(base, resume=True)
    assert everything(out) == before


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{", '{"step": 2}', '{"step": 2, "files": []}', '{"step": 2, "files": {"state.pt": 1}}', "\xff"],
)
def test_a_damaged_manifest_is_a_damaged_checkpoint(base: dict[str, Any], manifest: str) -> None:
    out = run(base, steps=2).folder
    (out / "checkpoints" / "step-000002" / "manifest.json").write_bytes(manifest.encode("latin-1"))
    with pytest.raises(UsageError, match="is whole"):
        run(base, resume=True)


@pytest.mark.parametrize("text", [b"\xff\xfe", b"- a\n", b"{", b"[" * 5000])
def test_a_damaged_configuration_is_named(base: dict[str, Any], text: bytes) -> None:
    out = run(base, steps=1).folder
    (out / "config.yaml").write_bytes(text)
    with pytest.raises(UsageError, match=r"config.yaml (cannot be read|holds no keys)"):
        run(base, resume=True)


def test_copies_of_checkpoints_are_neither_read_nor_removed(base: dict[str, Any], tmp_path: Path) -> None:
    kept = {"every": 1, "keep": 1}
    whole = run(base, steps=4, out=str(tmp_path / "whole"))
    out = run(base, steps=2, checkpoint=kept).folder
    root = out / "checkpoints"
    for name in ("step-000002-good", "step-000009", "step-2", "step-0000002"):
        os.system(f"cp -r {root / 'step-000002'} {root / name}")
    (root / "step-000002" / "notes.txt").write_text("mine")
    resumed = run(base, steps=4, checkpoint=kept, resume=True)
    assert same(weights(whole.folder), weights(resumed.folder))
    names = sorted(path.name for path in root.iterdir())
    assert names == ["step-0000002", "step-000002", "step-000002-good", "step-000004", "step-000009", "step-2"]
    assert [path.name for path in (root / "step-000002").iterdir()] == ["notes.txt"]


def test_what_stands_behind_a_link_or_outside_is_not_removed_with_a_checkpoint(
    base: dict[str, Any], tmp_path: Path
) -> None:
    kept = {"every": 1, "keep": 1}
    root = run(base, steps=1, checkpoint=kept).folder / "checkpoints"
    big, mine = tmp_path / "big", tmp_path / "mine"
    (root / "step-000001").rename(big)
    (root / "step-000001").symlink_to(big)
    before = everything(big)
    run(base, steps=2, checkpoint=kept, resume=True)
    (root / "step-000002" / "model").rename(mine)
    (root / "step-000002" / "model").symlink_to(mine)
    weights_file = (mine / "model.safetensors").read_bytes()
    run(base, steps=3, checkpoint=kept, resume=True)
    assert everything(big) == before
    assert (mine / "model.safetensors").read_bytes() == weights_file
    # A manifest that names what is not in its folder is none.
    manifest = root / "step-000003" / "manifest.json"
    held = json.loads(manifest.read_text())
    held["files"][str(big / "manifest.json")] = held["files"]["../../../big/state.pt"] = {"sha256": "", "bytes": 1}
    for path in root.glob("step-00000[12]"):
        path.rename(tmp_path / path.name)
    whole = manifest.read_text()
    manifest.write_text(json.dumps(held))
    with pytest.raises(UsageError, match="none of the checkpoints"):
        run(base, steps=4, checkpoint=kept, resume=True)
    manifest.write_text(whole)
    run(base, steps=4, checkpoint=kept, resume=True)
    assert everything(big) == before


def test_a_checkpoint_that_cannot_be_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    for step in (1, 2):
        checkpoint.write(tmp_path, step, lambda where: where.mkdir(), {}, keep=1)
    assert [path.name for path in checkpoint.listed(tmp_path)] == ["step-000001", "step-000002"]


def test_what_stands_in_the_way_is_named(base: dict[str, Any]) -> None:
    out = run(base, steps=1).folder
    (out / "final").rename(out / "kept")
    (out / "final").write_text("mine")
    with pytest.raises(StorageError, match="final cannot be written: "):
        run(base, steps=2, resume=True)
    assert (out / "final").read_text() == "mine"


def test_steps_are_sorted_as_numbers(tmp_path: Path) -> None:
    def save(where: Path) -> None:
        where.mkdir()

    for step in (999_999, 1_000_000, 1_000_001):
        checkpoint.write(tmp_path, step, save, {}, keep=2)
    assert [checkpoint.step_of(path) for path in checkpoint.listed(tmp_path)] == [1_000_000, 1_000_001]
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    assert newest.name == "step-1000001"


def test_copies_of_records_are_left_alone(base: dict[str, Any]) -> None:
    out = run(base, steps=2).folder
    copy = out / "rollouts" / "step-000009-copy.parquet"
    copy.write_bytes(b"mine")
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(b'{"no": "step"}\n\xff\n')
    resumed = run(base, steps=3, resume=True)
    assert [row["step"] for row in resumed.metrics] == [1, 2, 3]
    assert copy.read_bytes() == b"mine"


def test_a_models_folder_keeps_what_else_stands_in_it(tmp_path: Path) -> None:
    merged = tmp_path / "final" / "merged" / "model.safetensors"
    merged.parent.mkdir(parents=True)
    merged.write_text("mine")
    for text in ("one", "two"):
        save_into(
            tmp_path / "final", lambda aside, text=text: (aside.mkdir(), (aside / "config.json").write_text(text))
        )  # type: ignore[misc]
        assert (tmp_path / "final" / "config.json").read_text() == text
    assert merged.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_a_run_that_is_written_is_not_resumed_by_another(base: dict[str, Any]) -> None:
    out = run(base, steps=1).folder
    assert not (out / ".lock").exists()
    claim = folder.Claim(out)
    before = everything(out)
    with pytest.raises(UsageError, match=f"is being written by process {os.getpid()} on "):
        run(base, steps=2, resume=True)
    assert everything(out) == before
    claim.release()
    assert len(run(base, steps=2, resume=True).metrics) == 2


def test_a_kill_gives_a_folder_back(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from cohort.training.folder import Claim\n"
    code += f"claim = Claim(Path({str(tmp_path)!r})); print('claimed', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(UsageError, match=f"is being written by process {other.pid} "):
            folder.Claim(tmp_path)
        other.send_signal(signal.SIGKILL)
    folder.Claim(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_somebody_else_took_is_left_to_them(tmp_path: Path) -> None:
    (tmp_path / "grpo-1").mkdir()
    made, claim = folder.occupy(tmp_path / "grpo-1", numbered=True)
    claim.release()
    assert made == tmp_path / "grpo-2"


def test_places_where_no_folder_can_be(base: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out, says in [
        ("file", "is a file; name a folder"),
        ("file/run", "file is a file"),
        ("link", "is a link to .*nowhere"),
        ("link/run", "is a link to"),
        ("loop", "is a link to"),
        ("x" * 300, "cannot be the name of a folder"),
        ("a\0b", "NUL character"),
    ]:
        with pytest.raises(UsageError, match=says):
            run(base, out=f"{tmp_path}/{out}", model="is not looked at")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "loop"]


def test_a_run_that_cannot_begin_leaves_an_empty_folder_of_the_users(base: dict[str, Any]) -> None:
    Path(base["out"]).mkdir()
    with pytest.raises(UsageError, match="disco"):
        run(base, method="disco", reward="0.3*format:.")
    assert list(Path(base["out"]).iterdir()) == []


def test_a_full_disk_ends_a_run_with_what_is_saved(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = Recorder.rollouts

    def full(self: Recorder, step: int, result: Any) -> float:
        if step == 3:
            raise OSError(28, "No space left on device")
        return real(self, step, result)

    monkeypatch.setattr(Recorder, "rollouts", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device") as caught:
        run(base)
    assert "everything up to step 2 is saved in" in caught.value.__notes__[0]
    monkeypatch.setattr(Recorder, "rollouts", real)
    assert [row["step"] for row in run(base, resume=True).metrics] == [1, 2, 3, 4]


def test_a_disk_that_stays_full_names_the_newest_checkpoint(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    real = torch.save
    monkeypatch.setattr(
        torch, "save", lambda state, path: real(state, path) if state["progress"]["step"] < 3 else 1 / 0
    )
    with pytest.raises(StorageError, match="cannot be written: division by zero") as caught:
        run(base, checkpoint={"every": 1})
    note = caught.value.__notes__[0]
    assert "the last whole step could not be saved" in note
    assert "step-000002, which --resume continues" in note


def test_a_folder_that_is_deleted_meanwhile_is_made_again_with_what_there_is(base: dict[str, Any]) -> None:
    import shutil

    out = Path(base["out"])
    display = Display(quiet=True)
    display.step = lambda step, *a, **k: shutil.rmtree(out) if step == 2 else None  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="was deleted, moved or replaced") as caught:
        train(make_config(base), display=display)
    assert "up to step 2 is saved in" in caught.value.__notes__[0]
    assert [row["step"] for row in run(base, resume=True).metrics] == [3, 4]


def test_a_folder_of_somebody_else_is_not_written_to(base: dict[str, Any]) -> None:
    out = Path(base["out"])

    def replace(step: int, *_: Any, **__: Any) -> None:
        if step == 2:
            out.rename(out.with_name("moved"))
            out.mkdir()
            (out / "thesis.txt").write_text("mine")

    display = Display(quiet=True)
    display.step = replace  # type: ignore[method-assign]
    with pytest.raises(StorageError) as caught:
        train(make_config(base), display=display)
    assert f"--resume --out {out}-rescued" in caught.value.__notes__[0]
    assert everything(out) == {"thesis.txt": b"mine"}


def test_checkpoints_by_time(base: dict[str, Any]) -> None:
    seen = []
    out = Path(base["out"])
    display = Display(quiet=True)
    display.step = lambda step, *a, **k: seen.append(sorted(p.name for p in (out / "checkpoints").glob("step-*")))  # type: ignore[method-assign]
    train(make_config({**base, "checkpoint": {"minutes": 1e-9}}), display=display)
    assert seen == [[], ["step-000001"], ["step-000001", "step-000002"], ["step-000002", "step-000003"]]
    assert make_config({}).checkpoint.minutes == 10
