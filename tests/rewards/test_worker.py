"""The process that rewards run in: its messages, its calls, and its end."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

from cohort.rewards.frames import read_frame, write_frame
from cohort.rewards.sending import packed_functions
from cohort.rewards.worker import LOOKS, Watched


class Process:
    def __init__(self):
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "cohort.rewards.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ask(self, message):
        write_frame(self.worker.stdin, pickle.dumps(message))
        return json.loads(read_frame(self.worker.stdout))

    def call(self, *rewards, **columns):
        given = {name: pickle.dumps(values) for name, values in columns.items()}
        rows = len(columns["completions"])
        return self.ask(
            {
                "rewards": list(rewards),
                "columns": given,
                "rows": rows,
                "state": {"global_step": 1, "max_steps": 2},
                "timeout": 60.0,
            }
        )


def test_the_process_serves_calls_until_its_parent_goes_away():
    process = Process()
    assert process.ask({"path": [], "functions": None}) == {"ready": True}
    exact = process.ask({"load": ("exact", "exact")})
    assert exact == {
        "placed": [],
        "named": ["completions", "answer"],
        "required": ["completions", "answer"],
        "everything": True,
        "waits": False,
    }
    process.ask({"load": ("format:^a", "format")})
    for index, expected in ((0, 0.0), (1, 1.0), (0, 0.0)):
        (reply,) = process.call(index, completions=["a"], answer=["b"])
        assert reply["values"] == [expected]
    assert [reply["values"] for reply in process.call(0, 1, completions=["a"], answer=["a"])] == [[1.0], [1.0]]
    assert "there is no reward 'nothing'" in process.ask({"load": ("nothing", "nothing")})["error"]
    out, err = process.worker.communicate(timeout=10)
    assert (process.worker.returncode, out, err) == (0, b"", b"")


def test_a_thread_of_a_function_does_not_keep_the_process_alive():
    def starts(completions):
        import threading
        import time

        threading.Thread(target=time.sleep, args=(600,)).start()
        return [1.0] * len(completions)

    process = Process()
    process.ask({"path": [], "functions": packed_functions({"starts": starts})})
    process.ask({"load": ("", "starts")})
    (reply,) = process.call(0, completions=["a"])
    assert reply["values"] == [1.0]
    process.worker.communicate(timeout=10)
    assert process.worker.returncode == 0


def test_a_function_that_changes_what_it_holds_is_found_out_once():
    seen = []

    def collects(completions):
        seen.extend(completions)
        return [0.0] * len(completions)

    def quiet(completions):
        return [float(len(seen))] * len(completions)

    functions = Watched({"collects": collects, "quiet": quiet})
    functions.load("", "collects")
    functions.load("", "quiet")
    changed = []
    for _ in range(LOOKS + 1):
        changed.append([functions.call([i], lambda: {"completions": ["a"]}, 1, None)[0].get("changed") for i in (0, 1)])
    assert changed == [[["seen"], []], [None, []], [None, []], [None, None]]
