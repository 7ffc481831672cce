"""What the viewer's server answers, of whole runs and of broken ones."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from fastapi.testclient import TestClient

from cohort.analysis.store import open_run
from cohort.errors import UsageError
from cohort.viewer import query, server
from cohort.viewer.run_index import RunIndex, short_names
from tests.analysis.stored_run import metrics_row, write_run
from tests.cli.command import run as cohort


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that nobody writes to."""
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "a", recorded=2)
    write_run(root / "b", method="dapo", steps=5, seed=1, lr=3e-5, reward=["task"])
    return root


def client(*folders: Path) -> TestClient:
    return TestClient(server.application(RunIndex(folders)))


def stored(folder: Path, step: int) -> dict[str, list]:
    return pq.read_table(folder / "rollouts" / f"step-{step:06d}.parquet").to_pydict()


def test_runs_stand_with_what_they_are_and_how_far(runs: Path) -> None:
    found = client(runs).get("/api/runs").json()
    assert [(run["name"], run["method"], run["state"], run["step"], run["steps"]) for run in found] == [
        ("a", "grpo", "finished", 4, 4),
        ("b", "dapo", "finished", 5, 5),
    ]
    assert found[0]["summary"]["accuracy_after"] == 0.6
    assert [run["problems"] for run in found] == [[], []]


def test_a_running_run_is_read_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "going", finished=False)
    ask = client(folder)
    assert ask.get("/api/runs").json()[0]["state"] == "running"
    first = ask.get("/api/metrics", params={"run": "going"}).json()
    assert first["steps"] == [1, 2, 3, 4]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(metrics_row(5, np.random.default_rng(0), np.ones(12), 12)) + "\n" + '{"step": 6, "accu')
    second = ask.get("/api/metrics", params={"run": "going", "after": 4}).json()
    assert (second["steps"], second["rewritten"]) == ([5], first["rewritten"])
    assert second["values"]["accuracy"] == [1]
    assert "1 line(s) hold no step and are left out: 6" in ask.get("/api/runs").json()[0]["problems"][0]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('racy": 0.5}\n')
    assert ask.get("/api/metrics", params={"run": "going", "after": 5}).json()["values"] == {"accuracy": [0.5]}
    assert ask.get("/api/runs").json()[0]["problems"] == []
    # A resumed run takes up an earlier step: what was read of later ones is void.
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2]) + '{"step": 3, "accuracy": 0.25}\n')
    again = ask.get("/api/metrics", params={"run": "going", "after": 6}).json()
    assert again["rewritten"] != first["rewritten"]
    assert ask.get("/api/metrics", params={"run": "going"}).json()["values"]["accuracy"][-1] == 0.25
    (folder / "summary.json").write_text('{"steps": 3}')
    assert ask.get("/api/runs").json()[0]["state"] == "finished"


def test_a_run_that_nobody_writes_to_has_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = client(write_run(tmp_path / "dead", finished=False))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert ask.get("/api/runs").json()[0]["state"] == "stopped"


def test_configurations_say_first_in_what_they_differ(runs: Path) -> None:
    rows = client(runs).get("/api/configurations", params={"run": ["a", "b"]}).json()
    assert {row["key"]: list(row["values"].values()) for row in rows if row["differs"]} == {
        "method": ["grpo", "dapo"],
        "steps": [4, 5],
        "seed": [0, 1],
        "lr": [1e-5, 3e-5],
        "reward": [None, ["task"]],
    }
    assert [row["differs"] for row in rows] == sorted((row["differs"] for row in rows), reverse=True)


@pytest.mark.parametrize(
    ("asked", "keeps"),
    [
        ({}, lambda row, table: True),
        ({"correct": True}, lambda row, table: table["accuracy"][row] == 1),
        (
            {"correct": False, "reward_max": 0.1},
            lambda row, table: table["accuracy"][row] == 0 and table["reward"][row] <= 0.1,
        ),
        ({"truncated": True}, lambda row, table: not table["finished"][row]),
        ({"trained": False}, lambda row, table: not table["trained"][row]),
        ({"zero_signal": True}, lambda row, table: table["group"][row] == 0),
        ({"length_min": 12, "length_max": 14}, lambda row, table: 12 <= table["length"][row] <= 14),
        ({"prompt": "prompt-4"}, lambda row, table: table["prompt_id"][row] == "prompt-4"),
        ({"prompt": "3 + 1"}, lambda row, table: table["prompt"][row] == "What is 3 + 1?"),
        ({"text": "needle"}, lambda row, table: "NEEDLE" in table["completion"][row]),
        ({"text": "what (is"}, lambda row, table: False),
    ],
)
def test_rollouts_are_found(runs: Path, asked: dict, keeps) -> None:
    table = stored(runs / "a", 3)
    found = client(runs).get("/api/rollouts", params={"run": "a", "step": 3, **asked}).json()
    wanted = [row for row in range(12) if keeps(row, table)]
    assert [each["row"] for each in found["rollouts"]] == wanted
    assert (found["sampled"], found["groups"], found["components"]) == (12, 3, ["task", "brevity"])
    for each in found["rollouts"]:
        row = each["row"]
        assert each["reward"] == pytest.approx(table["reward"][row])
        assert each["components"]["brevity"] == pytest.approx(table["reward/brevity"][row])
        assert each["recorded"] == (table["group"][row] < 2)


def test_rollouts_of_older_runs_have_length_and_advantage_too(runs: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "old", steps=1)
    path = folder / "rollouts" / "step-000001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["length", "advantage_mean", "old_entropy", "pieces"]), path)
    table = stored(folder, 1)
    found = client(folder).get("/api/rollouts", params={"run": "old", "step": 1}).json()["rollouts"]
    assert [each["length"] for each in found] == [len(each) for each in table["tokens"]]
    assert [each["advantage"] for each in found] == pytest.approx([each[1] for each in table["advantage"]])
    assert all(each["recorded"] for each in found)


def test_a_search_in_all_steps_stops_at_its_limits_and_says_where(runs: Path) -> None:
    ask = client(runs)
    whole = ask.get("/api/search", params={"run": "b", "text": "Needle"}).json()
    assert [(each["step"], each["row"]) for each in whole["rollouts"]] == [(3, 4)]
    assert (whole["steps_read"], whole["next"], whole["why"]) == (5, None, None)
    some = ask.get("/api/search", params={"run": "b", "truncated": True, "limit": 4}).json()
    assert ([each["step"] for each in some["rollouts"]], some["next"], some["why"]) == ([1, 1, 1, 2, 2, 2], 3, "limit")
    rest = ask.get("/api/search", params={"run": "b", "truncated": True, "first": some["next"]}).json()
    assert {each["step"] for each in rest["rollouts"]} == {3, 4, 5}
    hurried = query.search(open_run(runs / "b"), [1, 2, 3], query.Filter(text="Needle"), seconds=0)
    assert (hurried["steps_read"], hurried["next"], hurried["why"]) == (1, 2, "time")


def test_a_group_stands_with_rewards_and_advantages(runs: Path) -> None:
    table = stored(runs / "a", 2)
    found = client(runs).get("/api/group", params={"run": "a", "step": 2, "group": 1}).json()
    assert [each["row"] for each in found["rollouts"]] == [4, 5, 6, 7]
    assert [each["completion"] for each in found["rollouts"]] == table["completion"][4:8]
    assert [each["advantage"] for each in found["rollouts"]] == pytest.approx(table["advantage_mean"][4:8])
    assert found["mean"] == pytest.approx(np.mean(table["reward"][4:8]))
    assert client(runs).get("/api/group", params={"run": "a", "step": 2, "group": 9}).json() == {
        "detail": "step 2 of the run a has no group 9"
    }


def test_tokens_have_their_numbers_and_who_made_them(runs: Path) -> None:
    table = stored(runs / "a", 2)
    ask = client(runs)
    found = ask.get("/api/tokens", params={"run": "a", "step": 2, "row": 5}).json()
    assert found["pieces"] == table["pieces"][5]
    for name in ("mask", "advantage", "logp", "ratio", "clipped", "policy_gradient", "ref_logp"):
        assert found["columns"][name] == pytest.approx(table[name][5], rel=1e-5)
    assert {each["name"] for each in found["colourings"]} >= {
        "advantage",
        "policy_gradient",
        "logp",
        "old_entropy",
        "ratio",
        "clipped",
        "mask",
        "reference",
        "mismatch",
    }
    assert (found["note"], found["sampled"]) == ("", 12)
    token = ask.get("/api/token", params={"run": "a", "step": 2, "row": 5, "token": 3}).json()
    numbers = {each["name"]: each["value"] for each in token["numbers"]}
    assert numbers["ratio"] == pytest.approx(table["ratio"][5][3], rel=1e-5)
    assert any(line.startswith("advantage [grpo") for line in token["lines"])
    lacking = ask.get("/api/tokens", params={"run": "a", "step": 2, "row": 9}).json()
    assert "--record tokens" in lacking["note"]


def test_what_is_not_there_is_said(runs: Path) -> None:
    ask = client(runs)
    for path, parameters, said in (
        ("metrics", {"run": "c"}, "there is no run 'c' here; there are a, b"),
        ("rollouts", {"run": "a", "step": 9}, "the run a has no rollouts of step 9; there are 4 steps, 1 to 4"),
        ("tokens", {"run": "a", "step": 1, "row": 99}, "a, step 1: there is no rollout 99; it has 0 to 11"),
        ("token", {"run": "a", "step": 1, "row": 0, "token": 99}, "there is no token 99"),
    ):
        answer = ask.get(f"/api/{path}", params=parameters)
        assert answer.status_code == 404
        assert said in answer.json()["detail"]
    assert ask.get("/api/rollouts", params={"run": "a", "step": "x"}).status_code == 422


def test_broken_runs_show_what_is_left(tmp_path: Path) -> None:
    cut = write_run(tmp_path / "cut")
    path = cut / "rollouts" / "step-000002.parquet"
    path.write_bytes(path.read_bytes()[:-60])
    (cut / "config.yaml").write_text("method: [grpo")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "metrics.jsonl").write_text('{"step": 1, "accuracy": NaN, "kl": 1e999, "loss": 0.5}\n')
    ask = client(tmp_path / "bare", tmp_path / "cut")
    first, second = ask.get("/api/runs").json()
    assert [text for text in first["problems"] if "config.yaml cannot be read" in text]
    assert any(str(path) in text for text in second["problems"])
    assert any("config.yaml cannot be read" in text for text in second["problems"])
    assert ask.get("/api/metrics", params={"run": "bare"}).json()["values"] == {"loss": [0.5]}
    assert ask.get("/api/steps", params={"run": "bare"}).json() == []
    assert "has no rollouts of step 1" in ask.get("/api/rollouts", params={"run": "bare", "step": 1}).json()["detail"]
    assert str(path) in ask.get("/api/rollouts", params={"run": "cut", "step": 2}).json()["detail"]
    assert str(path) in ask.get("/api/tokens", params={"run": "cut", "step": 2, "row": 0}).json()["detail"]
    assert len(ask.get("/api/rollouts", params={"run": "cut", "step": 3}).json()["rollouts"]) == 12
    assert ask.get("/api/search", params={"run": "cut", "text": "needle"}).json()["steps_read"] == 4
    assert ask.get("/api/tokens", params={"run": "cut", "step": 3, "row": 0}).json()["pieces"]


def test_the_doctor_is_asked_anew_when_the_run_went_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "sick", steps=40, groups=1, group_size=2, length=4)
    ask = client(folder)
    report = ask.get("/api/findings", params={"run": "sick"}).json()
    assert report["steps"] == 40
    assert all(
        finding["severity"] in ("alarm", "warning", "note") and finding["what"] for finding in report["findings"]
    )
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "accuracy": 0.5}\n')
    assert ask.get("/api/findings", params={"run": "sick"}).json()["steps"] == 41


def test_the_page_and_all_it_needs_come_from_here(runs: Path) -> None:
    ask = client(runs)
    answer = ask.get("/")
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "http" not in answer.text.replace("http-equiv", "")
    for path in ("static/app.js", "static/style.css", "static/theme.js", "assets/uplot.min.js", "assets/uplot.min.css"):
        assert f'"{path}"' in answer.text
        assert ask.get(f"/{path}").status_code == 200
    assert ask.get("/docs").status_code == 404
    assert ask.get("/static/../query.py").status_code == 404


def test_names_of_other_machines_are_refused_on_the_loopback(runs: Path) -> None:
    app = server.application(RunIndex([runs]), hosts=["127.0.0.1"])
    assert TestClient(app, base_url="http://127.0.0.1:80").get("/api/runs").status_code == 200
    assert TestClient(app, base_url="http://elsewhere.example").get("/api/runs").status_code == 400


def test_runs_have_the_shortest_names_that_tell_them_apart(tmp_path: Path) -> None:
    assert short_names([Path("/x/a/1"), Path("/x/b/1"), Path("/x/c")]) == ["a/1", "b/1", "c"]
    write_run(tmp_path / "one", steps=1)
    index = RunIndex([tmp_path])
    index.RESCAN_SECONDS = 0  # type: ignore[misc]
    write_run(tmp_path / "two", steps=1)
    assert [each.name for each in index.all()] == ["one", "two"]
    with pytest.raises(UsageError, match=r"no such folder; runs near it: .*one"):
        RunIndex([tmp_path / "three"])


def test_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: address already in use; .*--port"
        ):
            server.listen("127.0.0.1", port)
        monkeypatch.setattr(server, "PORT", port)
        with server.listen("127.0.0.1", None) as other:
            assert other.getsockname()[1] != port
    with pytest.raises(UsageError, match="no such name or address"):
        server.listen("no-such-host.invalid", 0)
    assert [server.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.2")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_the_command(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, said = cohort("view")
    assert (status, "there is no folder runs/ here" in said) == (2, True)
    (tmp_path / "runs").mkdir()
    status, _, said = cohort("view")
    assert (status, "runs is no run" in said) == (2, True)
    status, _, said = cohort("view", runs / "c")
    assert (status, "no such folder; runs near it" in said) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, _, said = cohort("view", runs, "--port", taken.getsockname()[1])
        assert (status, "already in use" in said) == (2, True)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: (time.sleep(0.7), None)[1])
    status, _, said = cohort("view", runs, "--port", 0)
    assert (status, "2 runs: a, b" in said, "anybody" in said) == (0, True, False)
    assert opened == [next(word for word in said.split() if word.startswith("http://127.0.0.1:"))]
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    status, _, said = cohort("view", runs / "b", "--port", 0, "--host", "0.0.0.0", "--no-browser")
    assert (status, "1 run: b" in said, "anybody in the network can read" in said) == (0, True, True)
    assert len(opened) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_one_signal_ends_it_whatever_a_page_waits_for(number: int, status: int, runs: Path) -> None:
    command = [sys.executable, "-m", "cohort.cli", "view", str(runs), "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = ""
        while "http://" not in said:
            said = process.stdout.readline()
        port = int(said.split("/")[2].split(":")[1])
        # A connection that is kept, a request that is not whole, and one whose answer takes long.
        kept, half, long = (socket.create_connection(("127.0.0.1", port)) for _ in range(3))
        kept.sendall(b"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in kept.recv(1000)
        half.sendall(b"GET /api/runs HTTP/1.1\r\nHo")
        long.sendall(b"GET /api/tokens?run=a&step=1&row=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    assert "Traceback" not in rest
    assert ("ended" in rest) == (number == signal.SIGINT)


def test_what_runs_under_runs_is_shown_when_none_is_named(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "mine", steps=1)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    status, _, said = cohort("view", "--no-browser")
    assert (status, "1 run: mine" in said) == (0, True)
    assert yaml.safe_load((tmp_path / "runs" / "mine" / "config.yaml").read_text())["method"] == "grpo"
