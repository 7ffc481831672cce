"""Runs that are damaged, foreign, or made to do harm: the others are shown, and of these what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fastapi.testclient import TestClient

from cohort.analysis import store
from cohort.analysis.store import open_run
from cohort.viewer import run_index, server
from cohort.viewer.run_index import RunIndex
from tests.analysis.stored_run import write_run
from tests.cli.command import run as cohort

ROLLOUTS = Path("rollouts") / "step-000002.parquet"
# Nine levels of nine references each: 400 million values from ten lines.
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
MERGES = "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


def line(text: str) -> Callable[[Path], object]:
    """A further line of metrics."""

    def damage(folder: Path) -> None:
        with (folder / "metrics.jsonl").open("ab") as file:
            file.write(text.encode("utf-8", "surrogatepass") + b"\n")

    return damage


def whole(name: str, content: str | bytes) -> Callable[[Path], object]:
    """A file with other content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else where a file or folder was."""

    def damage(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


def columns(**changes: pa.Array | None) -> Callable[[Path], object]:
    """Columns of the second step's rollouts with other values, of another type; None takes one away."""

    def damage(folder: Path) -> None:
        table = pq.read_table(folder / ROLLOUTS)
        for name, values in changes.items():
            name = name.replace("__", "/")
            if values is None:
                table = table.drop_columns([name])
            else:
                table = table.set_column(table.column_names.index(name), name, values)
        pq.write_table(table, folder / ROLLOUTS)

    return damage


def texts(count: int = 12) -> pa.Array:
    return pa.array(["abc"] * count)


def large_lists(folder: Path) -> None:
    """Every list with 64-bit offsets and values, as other programs write them."""
    table = pq.read_table(folder / ROLLOUTS)
    for name in ("tokens", "mask", "logp"):
        value = pa.int64() if name == "tokens" else pa.float64()
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.large_list(value)))
    pq.write_table(table, folder / ROLLOUTS)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "infinite step": line('{"step": Infinity}'),
    "step that is no number": line('{"step": NaN, "accuracy": 1}'),
    "step as a text": line('{"step": "5", "accuracy": 1}'),
    "step beyond all": line('{"step": 1e300}'),
    "step of 5000 digits": line('{"step": ' + "9" * 5000 + "}"),
    "half a step": line('{"step": 4.5}'),
    "step below 0": line('{"step": -1}'),
    "true as a step": line('{"step": true}'),
    "deep line": line("[" * 200_000),
    "deep metric": line('{"step": 5, "accuracy": ' + "[" * 50_000 + "]" * 50_000 + "}"),
    "metrics of all types": line('{"step": 5, "accuracy": "high", "kl": {"a": 1}, "entropy": [1], "time/step": "1 s"}'),
    "metric beyond all": line('{"step": 5, "accuracy": 1' + "0" * 400 + "}"),
    "zero bytes in metrics": line("\0" * 1000),
    "lone surrogate as a metric": line('{"step": 5, "\\ud800": "\\ud800"}'),
    "thousands of metrics": line(json.dumps({"step": 5, **{f"m{i}": i for i in range(5000)}})),
    "long line": line('{"step": 5, "x": "' + "a" * 1_100_000 + '"}'),
    "metrics that are no text": whole("metrics.jsonl", os.urandom(5000) + b"\n"),
    "no metrics": instead("metrics.jsonl", lambda path: None),
    "metrics that are a folder": instead("metrics.jsonl", Path.mkdir),
    "metrics that are a pipe": instead("metrics.jsonl", os.mkfifo),
    "metrics that lead to themselves": instead("metrics.jsonl", lambda path: path.symlink_to(path)),
    "metrics that lead nowhere": instead("metrics.jsonl", lambda path: path.symlink_to("gone")),
    "bomb": whole("config.yaml", BOMB),
    "merge bomb": whole("config.yaml", MERGES),
    "deep configuration": whole("config.yaml", "a: " + "[" * 200_000),
    "deep configuration of blocks": whole("config.yaml", "- " * 100_000),
    "configuration that holds itself": whole("config.yaml", "&a {method: grpo, x: *a}"),
    "zero bytes in the configuration": whole("config.yaml", b"method: gr\0po"),
    "configuration in another encoding": whole("config.yaml", "method: grüezi".encode("latin-1")),
    "empty whole number": whole("config.yaml", 'method: !!int ""'),
    "configuration of Python": whole("config.yaml", "method: !!python/object/apply:os.system ['false']"),
    "large configuration": whole("config.yaml", "x: " + "a" * 300_000),
    "configuration that is a list": whole("config.yaml", "[1, 2]"),
    "configuration that is a pipe": instead("config.yaml", os.mkfifo),
    "no configuration": instead("config.yaml", lambda path: None),
    "summary that is a list": whole("summary.json", "[1]"),
    "deep summary": whole("summary.json", '{"a": ' + "[" * 200_000),
    "large summary": whole("summary.json", '{"a": "' + "a" * 5_000_000 + '"}'),
    "summary that is a folder": instead("summary.json", Path.mkdir),
    "cut rollouts": lambda folder: os.truncate(folder / ROLLOUTS, 4000),
    "empty rollouts": whole(str(ROLLOUTS), b""),
    "rollouts of random bytes": whole(str(ROLLOUTS), b"PAR1" + os.urandom(3000) + b"PAR1"),
    "rollouts that are a folder": instead(str(ROLLOUTS), Path.mkdir),
    "rollouts that are a pipe": instead(str(ROLLOUTS), os.mkfifo),
    "rollouts that lead to themselves": instead(str(ROLLOUTS), lambda path: path.symlink_to(path)),
    "a file for the folder of rollouts": instead("rollouts", Path.touch),
    "rewards as texts": columns(reward=texts(), reward__task=texts()),
    "texts as numbers": columns(
        completion=pa.array([1.5] * 12), prompt=pa.array([[1]] * 12), prompt_id=pa.array([{"a": 1}] * 12)
    ),
    "groups as texts": columns(group=texts()),
    "groups as halves": columns(group=pa.array([0.5] * 12)),
    "flags as texts": columns(finished=texts(), trained=texts(), kept=pa.array([1.0] * 12)),
    "tokens as texts": columns(tokens=texts(), mask=texts(), sampler_logp=texts(), pieces=texts()),
    "lists of texts": columns(tokens=pa.array([["a"]] * 12), logp=pa.array([["a"]] * 12), mask=pa.array([["a"]] * 12)),
    "lists of other lengths": columns(logp=pa.array([[0.5]] * 12)),
    "texts that are no UTF-8": columns(
        completion=pa.StringArray.from_buffers(
            12, pa.array(range(13), pa.int32()).buffers()[1], pa.py_buffer(b"\xff" * 12)
        )
    ),
}
# Of these the trainer's own readers may have to do with, or a method: nothing is wrong with them.
HARMLESS: dict[str, Callable[[Path], object]] = {
    "settings of all types": whole(
        "config.yaml",
        "method: 5\nsteps: many\nseed: []\nmodel: {a: b}\nreward: 7\naccuracy: [1]\n2: 3\nlr: 2024-01-01\n",
    ),
    "numbers of all types": whole("summary.json", '{"accuracy_before": "low", "accuracy_after": [1], "stopped": "no"}'),
    "numbers that are none": whole("summary.json", '{"accuracy_before": NaN, "accuracy_after": 1e999}'),
    "lone surrogate in the configuration": whole("config.yaml", '{"method": "grpo", "model": "\\ud800"}'),
    "types of other writers": columns(
        reward=pa.array([1] * 12, pa.uint8()),
        accuracy=pa.array([True] * 12),
        group=pa.array([1.0] * 12),
        completion=texts().cast(pa.large_string()),
        prompt=texts().dictionary_encode(),
    ),
    "lists of other writers": large_lists,
    "nulls alone": columns(reward=pa.nulls(12), completion=pa.nulls(12), tokens=pa.nulls(12), group=pa.nulls(12)),
    "columns that are gone": columns(
        reward=None,
        completion=None,
        group=None,
        tokens=None,
        pieces=None,
        finished=None,
        length=None,
        advantage_mean=None,
    ),
    "no rewards": columns(reward=pa.array([None] * 11 + [1.0], pa.float32())),
    "no rollouts": lambda folder: shutil.rmtree(folder / "rollouts"),
    "rollouts under other names": lambda folder: (folder / "rollouts" / "step-²²²²²².parquet").touch(),
    "loop of folders": lambda folder: (folder / "rollouts" / "loop").symlink_to(folder),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("sound") / "run", recorded=2)


@pytest.fixture(scope="module")
def runs(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good run, and one for every damage."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(sound, root / "good")
    for name, damage in {**DAMAGES, **HARMLESS}.items():
        shutil.copytree(sound, root / name)
        damage(root / name)
    return root


@pytest.fixture(scope="module")
def ask(runs: Path) -> TestClient:
    return TestClient(server.application(RunIndex([runs])))


@pytest.mark.parametrize("what", [*DAMAGES, *HARMLESS])
def test_a_damaged_run_is_shown_with_what_is_wrong(what: str, runs: Path, ask: TestClient) -> None:
    asked = [
        *((page, {}) for page in ("metrics", "configurations", "steps", "findings")),
        *(
            ("rollouts", {"step": 2, **wanted})
            for wanted in (
                {},
                {"text": "a", "prompt": "b", "reward_min": 0, "length_max": 50, "correct": True},
                {"truncated": True, "trained": False, "zero_signal": True},
            )
        ),
        ("search", {"text": "a", "length_min": 1}),
        ("group", {"step": 2, "group": 1}),
        *((page, {"step": 2, "row": 5, "token": 0}) for page in ("tokens", "token")),
    ]
    for page, parameters in asked:
        answer = ask.get(f"/api/{page}", params={"run": what, **parameters})
        assert answer.status_code in (200, 404), (page, parameters, answer.text)
        found = json.loads(
            answer.text, parse_constant=lambda name, page=page: pytest.fail(f"{page}: {name} is no JSON")
        )
        assert page != "findings" or bool(found["problems"]) == (what in DAMAGES), found["problems"]
    found = {each["name"]: each for each in ask.get("/api/runs").json()}
    assert set(found) == {"good", *DAMAGES, *HARMLESS}
    assert (found["good"]["state"], found["good"]["step"], found["good"]["problems"]) == ("finished", 4, [])
    problems = found[what]["problems"]
    assert bool(problems) == (what in DAMAGES), problems
    assert all(str(runs / what) in problem for problem in problems)


@pytest.mark.parametrize("what", ["infinite step", "bomb", "no metrics", "rewards as texts", "settings of all types"])
def test_the_doctor_says_of_a_damaged_run_what_is_wrong(what: str, runs: Path) -> None:
    status, out, said = cohort("doctor", runs / what)
    assert (status, "Traceback" in said) == (0, False), said
    assert ("What went wrong on the way" in out) == (what in DAMAGES), out


def test_damaged_runs_are_compared_with_what_they_have(runs: Path, tmp_path: Path) -> None:
    folders = [runs / name for name in ("good", *DAMAGES, *HARMLESS)]
    status, _, said = cohort("compare", *folders, "--samples", 0, "--out", tmp_path / "report")
    assert (status, "Traceback" in said) == (0, False), said
    notes = json.loads((tmp_path / "report" / "results.json").read_text())["notes"]
    for name in ("infinite step", "bomb", "metrics that are a pipe", "summary that is a list"):
        assert any(str(runs / name) in note for note in notes), name


def test_a_run_of_an_unreadable_folder_says_so(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(sound, tmp_path / "bad")
    shutil.copytree(sound, tmp_path / "good")
    reached, opened, listed = Path.stat, Path.open, os.scandir

    def refuse(call: Callable) -> Callable:
        def called(path: Path | str, *arguments, **options):
            if str(path).startswith(str(tmp_path / "bad" / "")):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *arguments, **options)

        return called

    ask = TestClient(server.application(RunIndex([tmp_path])))
    monkeypatch.setattr(Path, "stat", refuse(reached))
    monkeypatch.setattr(Path, "open", refuse(opened))
    monkeypatch.setattr(os, "scandir", refuse(listed))
    bad, good = ask.get("/api/runs").json()
    assert (bad["state"], good["state"]) == ("broken", "finished")
    assert "metrics.jsonl cannot be read: Permission denied" in " ".join(bad["problems"])
    assert ask.get("/api/steps", params={"run": "bad"}).json() == []


@pytest.mark.parametrize("command", ["doctor", "compare", "view"])
@pytest.mark.parametrize(
    "path", ["a" * 5000, "runs/" + "a" * 5000, "/proc/1/root/run", "/dev/null", "loop", "gone/../run"]
)
def test_what_is_no_run_is_said(command: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    status, _, said = cohort(command, path if command != "compare" else f"./{path}" if path[0] != "/" else path)
    assert (status, "Traceback" in said, " is no run: " in said) == (2, False, True), said


def test_a_run_that_vanishes_takes_no_other_with_it(sound: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(sound, tmp_path / name)
    runs = RunIndex([tmp_path])
    ask = TestClient(server.application(runs))
    assert len(ask.get("/api/runs").json()) == 2
    followed = runs.get("a")
    shutil.rmtree(tmp_path / "a")
    first, second = ask.get("/api/runs").json()
    assert (first["state"], second["state"]) == ("broken", "finished")
    assert "metrics.jsonl cannot be read: No such file" in " ".join(first["problems"])
    for page in ("metrics", "steps", "findings"):
        assert ask.get(f"/api/{page}", params={"run": "a"}).status_code in (200, 404)
    assert followed.state == "broken"
    runs.RESCAN_SECONDS = 0  # type: ignore[misc]
    assert [each["name"] for each in ask.get("/api/runs").json()] == ["b"]


def test_a_run_of_a_kind_that_nobody_thought_of_takes_no_other_with_it(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        shutil.copytree(sound, tmp_path / name)
    before = store.Run.refresh

    def refresh(self: store.Run, most: int = 0) -> None:
        if self.folder.name == "a":
            raise ZeroDivisionError("of a new kind")
        before(self, most or store.MOST_METRICS)

    monkeypatch.setattr(store.Run, "refresh", refresh)
    ask = TestClient(server.application(RunIndex([tmp_path])))
    first, second = ask.get("/api/runs").json()
    assert (first["name"], first["state"], second["state"]) == ("a", "broken", "finished")
    assert first["problems"] == [f"{tmp_path}/a cannot be read: ZeroDivisionError: of a new kind"]
    answer = ask.get("/api/metrics", params={"run": "a"})
    assert (answer.status_code, answer.json()["detail"]) == (
        500,
        "this cannot be shown: ZeroDivisionError: of a new kind",
    )


def test_very_many_metrics_are_read_in_parts_and_not_for_ever(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(sound, tmp_path / "long")
    lines = [json.dumps({"step": step, "accuracy": 0.5}) for step in range(1, 2001)]
    lines[999] = "x" * 5000
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    size = (folder / "metrics.jsonl").stat().st_size
    monkeypatch.setattr(store, "LONGEST_LINE", 1000)
    monkeypatch.setattr(run_index, "PART", size // 4)
    ask = TestClient(server.application(RunIndex([tmp_path])))
    seen, after = [], 0
    for _ in range(8):
        part = ask.get("/api/metrics", params={"run": "long", "after": after}).json()
        seen += part["steps"]
        after = seen[-1]
    assert seen == [step for step in range(1, 2001) if step != 1000]
    assert len(open_run(folder).metrics) == 1999
    assert open_run(folder).problems == [f"{folder}/metrics.jsonl: 1 line(s) hold no step and are left out: 1000"]
    monkeypatch.setattr(store, "MOST_METRICS", size // 2)
    run = open_run(folder)
    assert 800 < run.metrics[-1]["step"] < 1200
    assert re.search(
        r"metrics\.jsonl holds [\d.]+ kB, of which the first [\d.]+ kB are read, up to step \d+", run.problems[-1]
    )


def test_a_few_bytes_of_rollouts_that_stand_for_billions_are_not_read(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "run")
    pq.write_table(pa.table({"reward": pa.array([0.0] * 1_200_000, pa.float32())}), folder / ROLLOUTS)
    run = open_run(folder)
    assert run.rollouts(2) is None
    assert "it has 1,200,000 rows, and at most 1,000,000 are read" in run.problems[0]


def test_folders_with_names_of_any_bytes_are_shown(sound: Path, tmp_path: Path) -> None:
    for name in (b"a\xff", b"a\xfe", b"<b>x</b>\n"):
        shutil.copytree(sound, Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)))
    ask = TestClient(server.application(RunIndex([tmp_path])))
    names = [each["name"] for each in ask.get("/api/runs").json()]
    assert len(set(names)) == 3
    for name in names:
        assert ask.get("/api/metrics", params={"run": name}).json()["steps"] == [1, 2, 3, 4]
    status, _, said = cohort("doctor", os.fsdecode(os.fsencode(tmp_path) + b"/a\xff"))
    assert (status, "Traceback" in said) == (0, False)


def test_settings_keep_their_values(sound: Path) -> None:
    assert open_run(sound).config == yaml.safe_load((sound / "config.yaml").read_text())
