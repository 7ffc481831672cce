"""The worker process: nothing that reward functions do disturbs the messages, hangs, or outlives the trainer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from cohort.errors import UsageError
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse

ROWS = ["good", "bad", "fine"]
SHORT = 0.7  # seconds, of which a call that does not hang takes next to none


def score(scorer, completions, *, ids=None, **columns):
    return scorer.grade([f"prompt of {c}" for c in completions], completions, ids, columns)


def test_what_a_function_prints_or_reads_does_not_disturb_the_messages(capfd):
    def noisy(completions):
        import os
        import subprocess
        import sys

        print("printed", flush=True)
        os.write(1, b"\x00\x00\x00\x00\x00\x00\x00\x01x")
        sys.stderr.write("said\n")
        subprocess.run(["sh", "-c", "echo from a child; cat"], check=True)
        assert sys.stdin.read() == ""
        return [1.0] * len(completions)

    with Scorer(parse([noisy]), timeout=20.0) as scorer:
        for _ in range(2):
            assert score(scorer, ["a", "b"]).components == {"noisy": [1.0, 1.0]}
    assert capfd.readouterr() == ("", "")


def test_large_batches_pass():
    with Scorer(parse([lambda completions: [len(c) for c in completions]])) as scorer:
        assert score(scorer, ["x" * 5000] * 400).components["<lambda>"] == [5000.0] * 400


def test_no_completions_have_no_scores():
    with Scorer(parse(["format:a", "exact"])) as scorer:
        assert scorer.grade([], [], [], {"answer": []}).components == {"format": [], "exact": []}


def alive(pid):
    """True if there is such a process; one that ended and that nobody has asked after has ended too."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not os.path.exists("/proc")


def test_a_process_that_hangs_is_ended_and_one_that_is_closed_too(tmp_path):
    log = tmp_path / "pids"

    def who(completions):
        import os
        import pathlib
        import time

        path = pathlib.Path(completions[0])
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(path.read_text().split()) <= 2:
            time.sleep(600)
        return [1.0]

    def pids():
        return [int(line) for line in log.read_text().split()]

    begin = time.monotonic()
    with Scorer(parse([who]), timeout=SHORT, on_error="zero") as scorer:
        assert score(scorer, [str(log)]).components == {"who": [0.0]}
        assert time.monotonic() - begin < 20
        # Called once as a batch and once as a row, each in a process of its own.
        assert len(set(pids())) == 2
        assert not any(alive(pid) for pid in pids())
        assert score(scorer, [str(log)]).components == {"who": [1.0]}
        assert alive(pids()[-1])
    assert not alive(pids()[-1])


# what cannot even begin ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmber", "there is no reward 'nmber': builtin are exact, number"),
        ("gone.py:f", "there is no file gone.py"),
        ("format:(", "no regular expression"),
        ("length:x", "write length or length:N"),
        ("{here}/ends.py:f", "cannot be imported: SystemExit"),
        ("{here}/ends.py", "there is no reward"),
        ("{here}/has.py:g", r"has no function 'g' \(it has: f\)"),
    ],
)
def test_a_reward_that_cannot_be_loaded_is_said_at_once(tmp_path, text, message):
    (tmp_path / "ends.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "has.py").write_text("def f(completions): ...\n")
    with pytest.raises(UsageError, match=message):
        Scorer(parse([text.format(here=tmp_path)]))


def test_an_unknown_choice_for_errors_is_refused():
    with pytest.raises(UsageError, match="on_reward_error is 'ignore', but must be one of stop, zero, skip"):
        Scorer(parse(["exact"]), on_error="ignore")


def test_what_a_module_binds_to_its_event_loop_lives_through_all_calls(tmp_path):
    file = tmp_path / "judges.py"
    file.write_text(
        "import asyncio\n"
        "room, loops = asyncio.Semaphore(1), set()\n\n\n"
        "async def judged(completions, **columns):\n"
        "    async def one(text):\n"
        "        async with room:\n"
        "            await asyncio.sleep(0)\n"
        "            loops.add(id(asyncio.get_running_loop()))\n"
        "            return float(len(loops))\n"
        "    return await asyncio.gather(*map(one, completions))\n\n\n"
        "async def other(completions):\n"
        "    loops.add(id(asyncio.get_running_loop()))\n"
        "    return [len(loops)] * len(completions)\n"
    )
    with Scorer(parse([f"{file}:judged", f"{file}:other"])) as scorer:
        for _ in range(3):
            assert score(scorer, ["a", "b"]).components == {"judged": [1.0, 1.0], "other": [1.0, 1.0]}


def test_the_time_limit_covers_what_the_process_does_not_read():
    def fine(completions):
        return [1.0] * len(completions)

    with Scorer(parse([fine]), timeout=1.0, on_error="zero") as scorer:
        assert score(scorer, ["a"]).components == {"fine": [1.0]}
        os.kill(scorer._workers[0].process.pid, signal.SIGSTOP)
        # More than a pipe holds, so that nobody who does not read it can be written to; started again it reads each row.
        scores = score(scorer, ["x" * 1_000_000] * 3)
        assert scores.components == {"fine": [1.0, 1.0, 1.0]}
        assert "no answer within 1 s" in scores.messages[0]


def test_a_corrupt_reply_is_a_failed_reward():
    def corrupts(completions):
        import os

        if "bad" in completions:
            for fd in range(3, 32):
                try:
                    os.write(fd, b"something that is no reply")
                except OSError:
                    continue
        return [1.0] * len(completions)

    with Scorer(parse([corrupts]), on_error="zero") as scorer:
        scores = score(scorer, ROWS)
        assert scores.components == {"corrupts": [1.0, 0.0, 1.0]}
        assert "its reply cannot be read" in scores.messages[0]
        assert score(scorer, ["good"]).components == {"corrupts": [1.0]}


def test_what_functions_print_is_kept_bounded_and_told_once():
    def prints(completions):
        for i in range(20_000):
            print(f"line {i} " + "x" * 90)
        return [1.0] * len(completions)

    with Scorer(parse([prints])) as scorer:
        for _ in range(3):
            score(scorer, ["a"])
        worker = scorer._workers[0].process.pid
        assert os.stat(f"/proc/{worker}/fd/2").st_size == 0 or not os.path.exists("/proc")
        text = scorer.printed.take()
        assert len(text) < 20_000
        assert "line 19999 x" in text
        assert "bytes before this are left out" in text
        assert scorer.printed.take() == ""


def test_streams_that_a_function_closes_are_there_again():
    def closes(completions):
        import os
        import sys

        print("before", flush=True)
        sys.stdout.close()
        sys.stderr = None
        os.close(0)
        os.close(2)
        return [1.0] * len(completions)

    with Scorer(parse([closes])) as scorer:
        for _ in range(3):
            assert score(scorer, ["a"]).components == {"closes": [1.0]}
        assert scorer.printed.take().count("before") == 3


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import os\nprint('one moment')\nos._exit(3)\n", "its process died (exit status 3)"),
        ("print('one moment')\nimport faulthandler\nfaulthandler._sigsegv()\n", "its process died (signal SIGSEGV)"),
        ("import os\nprint('one moment')\nos.kill(os.getpid(), 9)\n", "its process died (signal SIGKILL)"),
    ],
)
def test_a_file_that_dies_on_import_is_named_with_its_last_words(tmp_path, source, what):
    file = tmp_path / "dies.py"
    file.write_text(source)
    with pytest.raises(UsageError) as error:
        Scorer(parse(["exact", f"{file}:mine"]))
    assert f"reward '{file}:mine'" in str(error.value)
    assert what in str(error.value)
    assert "one moment" in str(error.value)


@pytest.mark.parametrize("source", ["import sys\nsys.exit('no key')\n", "raise KeyboardInterrupt('no key')\n"])
def test_a_file_that_leaves_on_import_is_named(tmp_path, source):
    file = tmp_path / "leaves.py"
    file.write_text(source)
    with pytest.raises(UsageError, match="no key"):
        Scorer(parse([f"{file}:mine"]))


def test_a_process_that_cannot_be_started_again_is_a_failed_reward(tmp_path):
    file = tmp_path / "once.py"
    file.write_text("import os\n\n\ndef mine(completions):\n    os.remove(__file__)\n    os._exit(5)\n")
    with Scorer(parse([f"{file}:mine"]), on_error="skip") as scorer:
        scores = score(scorer, ["a"])
    assert scores.components == {"mine": [None]}
    assert "its process could not be started again" in scores.messages[0]
    assert "there is no file" in scores.messages[0]


def test_files_are_imported_once_for_all_their_functions(tmp_path):
    file = tmp_path / "shared.py"
    file.write_text(
        "calls = []\n\n\ndef one(completions):\n    calls.append(1)\n    return [0]\n\n\n"
        "def two(completions):\n    return [len(calls)]\n"
    )
    with Scorer(parse([f"{file}:one", f"{file}:two"])) as scorer:
        assert score(scorer, ["a"]).components == {"one": [0.0], "two": [1.0]}


HANGING = """
import os, sys, time
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse

def hangs(completions, log):
    import os, subprocess, re
    child = subprocess.Popen(["sleep", "600"])
    with open(log[0], "w") as file:
        file.write(f"{os.getpid()} {child.pid}\\n")
    re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter's lock for ages
    return [0.0]

with Scorer(parse([hangs])) as scorer:
    scorer.grade(["p"], ["c"], None, {"log": [sys.argv[1]]})
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_process_and_its_children_end_with_the_trainer_however_it_dies(tmp_path, sent):
    script, log = tmp_path / "run.py", tmp_path / "pids"
    script.write_text(HANGING)
    run = subprocess.Popen([sys.executable, str(script), str(log)])
    pids: list[int] = []
    try:
        while len(pids) < 2:
            assert run.poll() is None
            time.sleep(0.05)
            pids = [int(pid) for pid in log.read_text().split()] if log.exists() else []
        assert all(alive(pid) for pid in pids)
        run.send_signal(sent)
        run.wait()
        end = time.monotonic() + 20
        while any(alive(pid) for pid in pids):
            assert time.monotonic() < end, "it lives on"
            time.sleep(0.05)
    finally:
        for pid in [run.pid, *pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
