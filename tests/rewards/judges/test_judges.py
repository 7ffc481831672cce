import json
import os
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import pytest

from cohort.errors import UsageError
from cohort.rewards.judges import server as server_module
from cohort.rewards.judges.judges import BudgetSpent, Judges, JudgeSettings
from cohort.rewards.judges.reply import Unreachable
from tests.rewards.judges.serving import Serving, serve

QUESTIONS = [f"question {i}" for i in range(12)]


def echo(messages):
    return f"to {messages[-1]['content']}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server_module, "PAUSE", 0.02)


def judges(timeout=5.0, **how):
    return Judges(JudgeSettings(timeout=timeout, **how))


def test_questions_are_asked_together_and_answered_in_their_order() -> None:
    with serve(Serving(answer=echo, forever=0.05)) as serving:
        replies = judges(concurrency=4).ask(serving.url, QUESTIONS)
    assert [reply.text for reply in replies] == [f"to {each}" for each in QUESTIONS]
    assert [(reply.read, reply.written, reply.cached) for reply in replies] == [(11, 3, False)] * 12
    assert serving.at_once == 4
    assert {body["model"] for body in serving.asked} == {"judge"}
    assert {(body["temperature"], body["max_tokens"]) for body in serving.asked} == {(0.0, 1024)}


def test_the_same_question_is_asked_once_and_never_again() -> None:
    with serve(Serving(answer=echo)) as serving:
        first = judges().ask(serving.url, ["a", "b", "a", [{"role": "user", "content": "b"}]])
        assert [reply.text for reply in first] == ["to a", "to b", "to a", "to b"]
        again = judges()
        (reply,) = again.ask(f"{serving.url}#judge", ["b"])
        assert (reply.text, reply.cached, reply.read) == ("to b", True, 11)
        assert (again.ledger.calls, again.ledger.tokens) == (0, 0)
        assert len(serving.asked) == 2
        # What its reply depends on makes it another question.
        judges().ask(serving.url, ["b"], tokens=5)
        judges().ask(serving.url, ["b", "b"], temperature=1.0, samples=[0, 1])
        judges(cache=False).ask(serving.url, ["b"])
    assert len(serving.asked) == 6


ASK = """
import sys
from cohort.rewards.judges.judges import Judges, JudgeSettings
replies = Judges(JudgeSettings(timeout=20, concurrency=4)).ask(sys.argv[1], [f"question {i}" for i in range(8)])
assert [r.text for r in replies] == [f"to question {i}" for i in range(8)]
"""


def test_two_processes_ask_a_question_once() -> None:
    with serve(Serving(answer=echo, forever=0.3)) as serving:
        both = [subprocess.Popen([sys.executable, "-c", ASK, serving.url]) for _ in range(2)]
        assert [process.wait(60) for process in both] == [0, 0]
    assert sorted(body["messages"][0]["content"] for body in serving.asked) == [f"question {i}" for i in range(8)]


@pytest.mark.parametrize("failure", [500, 503, (429, 0), "close", "half", "nonsense"], ids=str)
def test_a_failure_that_passes_is_tried_again(failure) -> None:
    with serve(Serving(answer=echo, plan=[failure, failure])) as serving:
        asked = judges(concurrency=1)
        (reply,) = asked.ask(serving.url, ["a"])
        assert reply.text == "to a"
        assert len(serving.asked) == 3
        # An answer that makes no sense is paid for, too.
        assert asked.ledger.calls == (3 if failure in ("half", "nonsense") else 1)


def test_a_server_is_left_alone_as_long_as_it_asks() -> None:
    for wait, least in ("0.4", 0.4), (None, 0.7):
        wait = wait or formatdate(time.time() + 2, usegmt=True)  # to the second before
        with serve(Serving(answer=echo, plan=[(429, wait)])) as serving:
            judges(concurrency=1, cache=False).ask(serving.url, ["a", "b"])
            assert serving.times[1] - serving.times[0] >= least, wait


def test_a_wait_beyond_the_time_is_no_wait() -> None:
    with serve(Serving(forever=(429, 3600))) as serving:
        begin = time.monotonic()
        replies = judges().ask(serving.url, QUESTIONS)
        assert time.monotonic() - begin < 2
    assert all(
        "asks to be left alone for 3600 s more, which is beyond judge_timeout = 5" in r.error for r in replies[:1]
    )
    assert all(reply.error and not reply.text for reply in replies)


def test_a_server_that_hangs_costs_one_time_limit() -> None:
    with serve(Serving(forever="hang")) as serving:
        asked = judges(timeout=0.6, concurrency=3)
        begin = time.monotonic()
        replies = asked.ask(serving.url, QUESTIONS)
        assert time.monotonic() - begin < 2.5
        assert "gave no answer within 0.6 s (judge_timeout)" in replies[0].error
        assert "was not asked: it failed 3 questions in a row" in replies[-1].error
        assert len(serving.asked) <= 2 * 3 - 1
        # A call that came to nothing is given back.
        assert asked.ledger.calls == 0
        # The next batch finds out for itself whether the server is well again.
        serving.over.set()
        serving.forever = None
        assert all(reply.text for reply in asked.ask(serving.url, QUESTIONS))


def test_a_server_that_dies_between_batches_is_told_of() -> None:
    with serve(Serving(answer=echo)) as serving:
        asked = judges(timeout=0.5)
        asked.ask(serving.url, ["a"])
    replies = asked.ask(serving.url, ["a", "b"])
    assert replies[0].text == "to a"
    assert "cannot be reached" in replies[1].error
    assert "tried for 0.5 s (judge_timeout)" in replies[1].error


def test_an_endless_nonsense_is_given_up() -> None:
    with serve(Serving(forever="half")) as serving:
        asked = judges(concurrency=1)
        (reply,) = asked.ask(serving.url, ["a"])
    assert "gave an answer that is no chat completion" in reply.error
    assert asked.ledger.calls == len(serving.asked) == 3


def test_one_question_that_is_refused_leaves_the_others() -> None:
    with serve(Serving(answer=echo, plan=[400])) as serving:
        replies = judges(concurrency=1).ask(serving.url, ["a", "b"])
    assert "answers 400: failure 400" in replies[0].error
    assert replies[1].text == "to b"


def test_a_refusal_of_all_ends_it() -> None:
    with serve(Serving(answer=echo)) as serving:
        asked = judges(concurrency=2)
        asked.ask(serving.url, ["a"])
        serving.forever = 404
        with pytest.raises(Unreachable, match="answers 404 for the model 'judge'"):
            asked.ask(serving.url, QUESTIONS)
    assert len(serving.asked) <= 4


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("COHORT_JUDGE_KEY", raising=False)
    with serve(Serving(answer=echo, key="geheim")) as serving:
        with pytest.raises(UsageError, match="the environment variable COHORT_JUDGE_KEY is not set"):
            judges().check(serving.url)
        monkeypatch.setenv("MY_KEY", "falsch")
        with pytest.raises(UsageError, match="MY_KEY holds a key that it does not take"):
            judges(key="MY_KEY").check(serving.url)
        monkeypatch.setenv("MY_KEY", "geheim")
        assert judges(key="MY_KEY").ask(serving.url, ["a"])[0].text == "to a"
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"to a" in held
    assert b"geheim" not in held


def test_a_key_in_the_address_is_refused() -> None:
    for address in ("http://user:geheim@127.0.0.1/v1#m", "http://127.0.0.1/v1?key=geheim#m"):
        with pytest.raises(UsageError, match="belongs into the environment variable") as caught:
            judges().check(address)
        assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://", "ftp://host/v1", "http://[::1", "http://host:99999/v1"])
def test_what_is_no_address_is_refused(address) -> None:
    with pytest.raises(UsageError, match="this is no address of a server"):
        judges().check(address)


def test_the_model_is_found_or_named() -> None:
    with serve(Serving(models=["one", "two"])) as serving:
        with pytest.raises(UsageError, match="which model is to judge\\? it has one, two: write PROMPT@"):
            judges().check(serving.url)
        with pytest.raises(UsageError, match="has no model 'three': it has one, two"):
            judges().check(f"{serving.url}#three")
        judges().ask(f"{serving.url}#two", ["a"])
        # An address without a path, and one of the very endpoint.
        judges(cache=False).ask(f"http://127.0.0.1:{serving.port}#two", ["a"])
        judges(cache=False).ask(f"{serving.url}/chat/completions#two", ["a"])
    assert [body["model"] for body in serving.asked] == ["two"] * 3


def test_a_judge_that_is_not_there_is_told_before_anything_is_asked() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(UsageError, match=r"is not there: it cannot be reached.*tried for 0.3 s"):
            judges(timeout=0.3).check(f"http://127.0.0.1:{port}")
    with pytest.raises(UsageError, match=r"judge '/no/folder': .*it cannot be loaded"):
        judges().check("/no/folder")
    with pytest.raises(UsageError, match="no policy here"):
        judges().ask("policy", ["a"])


def test_a_server_that_starts_slowly_is_waited_for() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    said: list[str] = []
    asked = Judges(JudgeSettings(timeout=5.0), log=said.append)
    later = Serving(answer=echo)
    done = threading.Event()

    def start() -> None:
        time.sleep(0.3)
        with serve(later, port):
            done.wait(10)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        assert asked.ask(f"http://127.0.0.1:{port}", ["a"])[0].text == "to a"
    finally:
        done.set()
        thread.join()
    assert len(said) == 1
    assert "waiting for it, 5 s at most (judge_timeout)" in said[0]


def test_newer_names_of_the_settings_are_found() -> None:
    refuse = {
        "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
        "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model.",
    }
    with serve(Serving(answer=echo, refuse=refuse)) as serving:
        replies = judges(concurrency=1).ask(serving.url, ["a", "b"])
    assert [reply.text for reply in replies] == ["to a", "to b"]
    assert serving.asked[-1]["max_completion_tokens"] == 1024
    assert "temperature" not in serving.asked[-1]
    assert len(serving.asked) == 4


def test_calls_never_exceed_their_limit() -> None:
    with serve(Serving(answer=echo)) as serving:
        asked = judges(calls=5, concurrency=8)
        with pytest.raises(
            BudgetSpent, match=r"budget of 5 calls \(judge_calls\) is spent: 5 of 12 questions have a reply"
        ):
            asked.ask(serving.url, QUESTIONS)
        assert len(serving.asked) == 5
        # What has a reply costs nothing, also where nothing may be spent any more; with a larger limit the rest is asked.
        more = judges(calls=7)
        assert all(reply.text for reply in more.ask(serving.url, QUESTIONS))
        assert len(serving.asked) == 12
        skipping = judges(calls=1, on_spent="skip", cache=False)
        assert sorted(reply.spent for reply in skipping.ask(serving.url, QUESTIONS)) == [False] + [True] * 11
    assert len(serving.asked) == 13


def test_tokens_exceed_their_limit_by_what_is_in_flight_at_most() -> None:
    with serve(Serving(answer=echo)) as serving:
        asked = judges(tokens=40, concurrency=1)
        with pytest.raises(BudgetSpent, match=r"40 tokens \(judge_tokens\) is spent: they have cost 42"):
            asked.ask(serving.url, QUESTIONS)
        assert len(serving.asked) == 3
        serving.usage = False
        uncounted = judges(cache=False)
        uncounted.ask(serving.url, ["x" * 400])
        assert uncounted.ledger.tokens == 100 + len("to " + "x" * 400) // 4


def test_what_was_spent_lives_in_a_file(tmp_path) -> None:
    path = tmp_path / "judges.json"
    with serve(Serving(answer=echo)) as serving:
        first = judges(calls=10)
        first.ledger.keep(path)
        first.ask(serving.url, ["a", "b"])
        assert json.loads(path.read_text()) == {"calls": 2, "tokens": 28}
        again = judges(calls=10)
        again.ledger.keep(path)
        again.ask(serving.url, ["b", "c"])
        assert json.loads(path.read_text()) == {"calls": 3, "tokens": 42}
    with pytest.raises(UsageError, match=r"budget of 3 calls \(judge_calls\) is spent: raise the limit"):
        judges(calls=3).ledger.keep(path)
    path.write_text("[")
    with pytest.raises(UsageError, match="cannot be read"):
        judges().ledger.keep(path)


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path, monkeypatch) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "judges").write_text("no folder")
    said: list[str] = []
    with serve(Serving(answer=echo)) as serving:
        asked = Judges(JudgeSettings(timeout=5.0), log=said.append)
        assert asked.ask(serving.url, ["a", "a"])[1].text == "to a"
        asked.ask(serving.url, ["b"])
    assert len(said) == 1
    assert "replies of judges are not kept" in said[0]


def test_what_another_process_left_behind_is_asked_after_its_time() -> None:
    with serve(Serving(answer=echo)) as serving:
        asked = judges(timeout=0.3)
        asked.ask(serving.url, ["a"])
        store = asked._store
        store._run("DELETE FROM replies", ())
        key = asked_key(serving)
        store._run("INSERT INTO claims VALUES (?, 'a dead process', ?)", (key, time.time() + 0.6))
        begin = time.monotonic()
        assert asked.ask(serving.url, ["a"])[0].text == "to a"
        assert 0.4 < time.monotonic() - begin < 3


def asked_key(serving):
    from cohort.rewards.judges.reply import Drawing, key_of

    return key_of(f"{serving.url}#judge#/judge", [{"role": "user", "content": "a"}], Drawing(1024))


def test_an_interruption_gives_up_at_once() -> None:
    code = """
import os, signal, sys, threading, time
from cohort.rewards.judges.judges import Judges, JudgeSettings
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begin = time.monotonic()
try:
    Judges(JudgeSettings(timeout=60)).ask(sys.argv[1], ["a"])
except KeyboardInterrupt:
    sys.exit(0 if time.monotonic() - begin < 5 else 1)
sys.exit(2)
"""
    with serve(Serving(forever="hang")) as serving:
        assert subprocess.run([sys.executable, "-c", code, serving.url], timeout=60, env=os.environ).returncode == 0
