import pytest

from cohort.errors import UsageError
from cohort.rewards.calling import RewardError
from cohort.rewards.judges import server as server_module
from cohort.rewards.judges.judges import Judges, JudgeSettings
from cohort.rewards.judges.reply import Reply
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from tests.rewards.judges.serving import Serving, always, serve

RUBRIC = [{"criterion": "says 4", "weight": 3}, {"criterion": "is rude", "weight": -1}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server_module, "PAUSE", 0.02)


def graded(prompt, serving, completions, *, on_error="stop", settings=None, **columns):
    """Scores of completions to the same question, by a judge at a server."""
    columns = {name: [value] * len(completions) for name, value in columns.items()}
    judges = Judges(settings or JudgeSettings(timeout=1.0, concurrency=2))
    with Scorer(parse([f"judge:{prompt}@{serving.url}"]), on_error=on_error, judges=judges) as scorer:
        return scorer.grade(["What is 2+2?"] * len(completions), completions, None, columns)


def values(scores):
    return next(iter(scores.components.values()))


def test_scores_are_brought_to_one_and_what_cannot_be_read_is_none() -> None:
    replies = {"a": "Score: 10", "b": "Score: 1", "c": "no idea"}

    def answer(messages):
        return next(said for text, said in replies.items() if f"\n{text}\n" in messages[-1]["content"])

    with serve(Serving(answer=answer)) as serving:
        scores = graded("quality", serving, ["a", "b", "c", [{"role": "assistant", "content": "a"}]])
    assert values(scores) == [1.0, 0.0, None, 1.0]
    assert scores.extra["judge/quality/unread"] == [None, None, "no line 'Score: N' in it, N from 1 to 10", None]
    assert scores.extra["judge/quality/reply"] == ["Score: 10", "Score: 1", "no idea", "Score: 10"]
    assert scores.metrics["judge/quality/unread"] == [0.25]
    assert not scores.failed
    assert len(serving.asked) == 3


def test_a_verdict_sees_the_answer_only_where_its_prompt_compares_with_it() -> None:
    with serve(Serving(answer=always("Verdict: yes"))) as serving:
        assert values(graded("correct", serving, ["4"], answer="vier")) == [1.0]
        found = graded("consistent", serving, ["2+2 is #### 4", "four", "<think>2+2</think> 4"], answer="vier")
    assert values(found) == [1.0, None, 1.0]
    shown = [body["messages"][-1]["content"] for body in serving.asked]
    assert ["vier" in text for text in shown] == [True, False, False]


def test_a_rubric_pays_the_share_of_weights_that_is_met() -> None:
    replies = iter(["1: yes\n2: no", "1: yes\n2: yes", "1: no\n2: no", "1: yes"])
    with serve(Serving(answer=lambda messages: next(replies))) as serving:
        how = JudgeSettings(timeout=1.0, concurrency=1)
        scores = graded("rubric", serving, ["a", "b", "c", "d"], rubric=RUBRIC, settings=how)
        assert values(scores) == [1.0, 0.75, 0.25, None]
        assert "for criterion 2" in scores.extra["judge/rubric/unread"][3]
        assert values(graded("rubric", serving, ["a"], rubric=None)) == [None]
    assert "1. says 4\n2. is rude" in serving.asked[0]["messages"][-1]["content"]


def test_wrong_steps_cost_their_share() -> None:
    with serve(Serving(answer=always("Wrong steps: 1, 7"))) as serving:
        assert values(graded("steps", serving, ["one\n\ntwo\n\nthree\n\nfour", ""])) == [0.75, None]


def test_pairs_are_shown_in_both_orders_and_disagreement_is_a_tie() -> None:
    def longest(messages):
        _, first, _, second, _ = messages[-1]["content"].split("\n=====")[0:5]
        return "Better: A" if len(first) > len(second) else "Better: B"

    completions = ["4", "it is 4", "the answer is 4"]
    with serve(Serving(answer=longest)) as serving:
        assert values(graded("better", serving, completions)) == [0.0, 0.5, 1.0]
        assert len(serving.asked) == 6
    with serve(Serving(answer=always("Better: A"))) as serving:
        scores = graded("better", serving, completions)
        # Who prefers whatever stands first prefers nothing.
        assert values(scores) == [0.5, 0.5, 0.5]
        assert scores.metrics["judge/better/swapped"] == [1.0]
        assert values(graded("better", serving, ["alone"])) == [None]
    with serve(Serving(answer=always("both are fine"))) as serving:
        assert values(graded("better", serving, completions)) == [None] * 3


def test_pairs_are_made_within_a_row() -> None:
    with serve(Serving(answer=always("Better: tie"))) as serving:
        judges = Judges(JudgeSettings(timeout=1.0))
        with Scorer(parse([f"judge:better@{serving.url}"]), judges=judges) as scorer:
            scores = scorer.grade(["p", "q", "p", "r"], ["a", "b", "c", "d"], None, {})
        assert values(scores) == [0.5, None, 0.5, None]
        assert len(serving.asked) == 2


def test_several_replies_are_averaged(tmp_path) -> None:
    path = tmp_path / "good.md"
    path.write_text("---\nanswer: verdict\nreplies: 4\n---\n{completion}, a thing of {topic}: is it good?")
    replies = iter(["Verdict: yes", "Verdict: no", "Verdict: yes", "hm"])
    with serve(Serving(answer=lambda messages: next(replies))) as serving:
        scores = graded(path, serving, ["it"], topic="toys", settings=JudgeSettings(timeout=1.0, concurrency=1))
        assert values(scores) == [pytest.approx(2 / 3)]
        assert [body["seed"] for body in serving.asked] == [0, 1, 2, 3] or serving.asked[0]["temperature"] == 1.0
        assert serving.asked[0]["messages"][-1]["content"].startswith("it, a thing of toys")


@pytest.mark.parametrize("on_error", ["stop", "zero", "skip"])
def test_questions_that_fail_are_what_on_error_says(on_error) -> None:
    with serve(Serving(plan=[None, 400])) as serving:
        how = {"on_error": on_error, "settings": JudgeSettings(timeout=1.0, concurrency=1)}
        if on_error == "stop":
            with pytest.raises(RewardError, match=r"reward 'quality' failed on row 2: .*answers 400"):
                graded("quality", serving, ["a", "b", "c"], **how)
            return
        scores = graded("quality", serving, ["a", "b", "c"], **how)
        assert values(scores) == [pytest.approx(6 / 9), None if on_error == "skip" else 0.0, pytest.approx(6 / 9)]
        assert scores.failed == {1}
        assert "answers 400" in scores.messages[0]
        # Nothing is asked again to find out which it was.
        assert len(serving.asked) == 3


def test_a_spent_budget_ends_it_or_gives_no_reward() -> None:
    with serve(Serving()) as serving:
        with pytest.raises(RewardError, match=r"budget of 2 calls \(judge_calls\) is spent"):
            graded("quality", serving, ["a", "b", "c"], settings=JudgeSettings(calls=2), on_error="skip")
        how = JudgeSettings(calls=1, on_spent="skip", concurrency=1, cache=False)
        scores = graded("quality", serving, ["a", "b", "c"], settings=how)
    assert values(scores) == [pytest.approx(6 / 9), None, None]
    assert not scores.failed


def test_the_policy_judges_where_there_is_one() -> None:
    with pytest.raises(UsageError, match="judge 'policy': nothing is drawn here"):
        Scorer(parse(["judge:quality@policy"]), judges=Judges(without_policy="nothing is drawn here"))
    judges = Judges(without_policy="")
    asked = []

    def answer(questions, tokens):
        asked.append(len(questions))
        return [Reply("Score: 10", 5, 2)] * len(questions)

    with Scorer(parse(["judge:quality@policy"]), judges=judges) as scorer:
        judges.policy = answer
        for _ in range(2):  # the policy may be another one by now
            assert values(scorer.grade(["q"] * 3, ["a", "b", "a"], None, {})) == [1.0] * 3
    assert asked == [2, 2]
    assert (judges.ledger.calls, judges.ledger.tokens) == (4, 28)


def test_a_function_of_the_users_is_not_lent_the_judges() -> None:
    def everything(completions, **rest):
        return [float("judges" in rest)] * len(completions)

    with serve(Serving()) as serving:
        specs = parse([everything, f"judge:quality@{serving.url}"])
        with Scorer(specs, process="here", judges=Judges(JudgeSettings(timeout=1.0))) as scorer:
            found = scorer.grade(["q"], ["a"], None, {"judges": ["a column"]})
    assert found.components["everything"] == [1.0]
    with pytest.raises(UsageError, match="asks for 'judges', which is not available"):
        Scorer(parse([lambda completions, judges: [0.0]]), process="here").check_arguments([])
