import pytest
import torch

from cohort.errors import UsageError
from cohort.rewards.calling import RewardError
from cohort.rewards.judge import ask, check_judge, load_judge
from cohort.rewards.judges import server as server_module
from cohort.rewards.judges.judges import Judges, JudgeSettings
from cohort.types import Prompt
from tests.rewards.judges.serving import Serving, always, serve

PROMPTS = [Prompt(f"p{i}", f"question {i}", (1,), f"question {i}", row={"topic": f"t{i}"}) for i in range(2)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server_module, "PAUSE", 0.02)


@pytest.fixture
def judges():
    return Judges(JudgeSettings(timeout=1.0, concurrency=1))


def test_which_of_two_is_better_in_both_orders(judges) -> None:
    def right(messages):
        first = messages[-1]["content"].split("Answer A:")[1].split("Answer B:")[0]
        return "Better: A" if "right" in first else "Better: B" if "question 0" in messages[-1]["content"] else "hm"

    with serve(Serving(answer=right)) as serving:
        judge = f"better@{serving.url}"
        texts = {"first": ["wrong", "wrong"], "second": ["right", "wrong too"]}
        assert ask(judge, PROMPTS, judges=judges, **texts) == [1, None]
        assert len(serving.asked) == 4
    metrics = judges.take_metrics()
    assert metrics["judge/calls"] == 4.0
    assert metrics["judge/better/unread"] == 0.5
    assert judges.take_metrics() == {"judge/calls": 4.0, "judge/tokens": 56.0}


def test_which_criteria_are_met_and_none_where_that_cannot_be_read(judges) -> None:
    replies = iter(["1: yes\n2: no", "well"])
    with serve(Serving(answer=lambda messages: next(replies))) as serving:
        texts = {"completions": ["a", "b"], "criteria": [["one", "two"], ["three"]]}
        assert ask(f"rubric@{serving.url}", PROMPTS, judges=judges, **texts) == [[1, 0], []]
    assert "1. one\n2. two" in serving.asked[0]["messages"][-1]["content"]


def test_which_steps_are_wrong_by_several_critiques(judges, tmp_path) -> None:
    path = tmp_path / "critic.md"
    path.write_text("---\nanswer: steps\nreplies: 3\n---\n{steps} about {topic}")
    replies = iter(["Wrong steps: 1", "Wrong steps: none", "I cannot say"])
    with serve(Serving(answer=lambda messages: next(replies))) as serving:
        found = ask(f"{path}@{serving.url}", PROMPTS[:1], judges=judges, completions=["Step 0: a\n\nStep 1: b"])
    assert found == [[[1], [], []]]
    assert "Step 1: b about t0" in serving.asked[0]["messages"][-1]["content"]


def test_a_question_without_a_reply_ends_it(judges) -> None:
    with serve(Serving(plan=[400])) as serving, pytest.raises(RewardError, match=r"the judge 'better@.*answers 400"):
        ask(f"better@{serving.url}", PROMPTS[:1], judges=judges, first=["a"], second=["b"])


def test_what_does_not_answer_the_method_is_told_before_anything_is_asked(judges, tmp_path) -> None:
    with serve(Serving(answer=always("Better: A"))) as serving:
        check_judge(f"better@{serving.url}", ["prompts", "first", "second"], ["topic"], judges)
        for prompt, texts in (("steps", ["first", "second"]), ("better", ["completions"])):
            with pytest.raises(UsageError, match="but what the method asks has 'answer: "):
                check_judge(f"{prompt}@{serving.url}", ["prompts", *texts], [], judges)
        with pytest.raises(UsageError, match="answers with a verdict, which no method asks for; as a reward it is"):
            load_judge(f"correct@{serving.url}")
        path = tmp_path / "own.md"
        path.write_text("---\nanswer: pair\n---\n{first} {second} {style}")
        with pytest.raises(UsageError, match=r"shows \{style\}, which is no column of the data \(topic\)"):
            check_judge(f"{path}@{serving.url}", ["prompts", "first", "second"], ["topic"], judges)
        assert not serving.asked
    with pytest.raises(UsageError, match="is not there"):
        check_judge("better@http://127.0.0.1:9", ["first", "second"], [], Judges(JudgeSettings(timeout=0.2)))


@pytest.mark.parametrize(
    ("method", "reply"), [("pref-grpo", "Better: A"), ("rgr-grpo", "1: yes\n2: no"), ("capo-genprm", "Wrong steps: 0")]
)
def test_methods_train_with_a_prompt_and_a_model(method, reply, tmp_path, micro_root) -> None:
    from cohort.training.config import make_config
    from cohort.training.run import train
    from tests import micro

    prompt = {"pref-grpo": "better", "rgr-grpo": "rubric", "capo-genprm": "steps"}[method]
    with serve(Serving(answer=always(reply))) as serving:
        config = make_config(
            {
                "method": f"{method}(judge='{prompt}@{serving.url}')",
                "model": str(micro.folder(micro_root)),
                "data": micro.ROWS,
                "reward": ["exact"],
                "steps": 2,
                "prompts_per_step": 2,
                "group_size": 3,
                "max_new_tokens": 4,
                "device": "cpu",
                "out": str(tmp_path / "run"),
            }
        )
        result = train(config)
        assert serving.asked
    metrics = result.metrics[-1]
    assert metrics["judge/calls"] == len(serving.asked)
    assert metrics[f"judge/{prompt}/unread"] == 0.0
    assert torch.isfinite(torch.tensor(metrics["loss"]))
