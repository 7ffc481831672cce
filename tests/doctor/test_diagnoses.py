"""Every diagnosis is made on a run that has the disease, and none on healthy ones."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cohort import registry
from cohort.analysis.store import open_run
from cohort.doctor import diagnoses, examine
from cohort.doctor.finding import SEVERITIES
from cohort.doctor.run.inconsistent_answer import equations_hold
from cohort.training.config import keys
from tests.doctor.synthetic import Shape, line, write_run


def verdict(random, right, lengths, t):
    return right


def graded(random, right, lengths, t):
    return np.clip(0.6 * right + 0.2 * random.normal(size=len(right)) + 0.2, 0, 1)


def form(random, right, lengths, t):
    return (random.random(len(right)) < 0.8 + 0.15 * t).astype(float)


def brevity(random, right, lengths, t):
    return 1 - lengths / 64


HEALTHY = {
    "as the embedded task": Shape(),
    "short": Shape(steps=12, record_every=1),
    "long, without a reference": Shape(steps=150, groups=8, record_every=10, kl=None),
    "large groups": Shape(size=16, groups=8, accuracy=line(0.15, 0.45)),
    "groups of four": Shape(size=4, groups=24, hardness=20.0, accuracy=line(0.4, 0.6)),
    "learnt to the end": Shape(
        accuracy=line(0.6, 0.9), hardness=12.0, entropy=line(0.3, 0.08), held_out=line(0.6, 0.92)
    ),
    "hard, slow": Shape(accuracy=line(0.08, 0.3), size=16, hardness=12.0, entropy=line(0.9, 0.6), kl=line(0, 0.03)),
    "several updates a step": Shape(spread=0.12, record_every=4, metrics={"clip_fraction": line(0.05, 0.08)}),
    "bfloat16": Shape(mismatch=0.012, config={"dtype": "bfloat16"}, kl=line(0, 0.05)),
    "graded rewards": Shape(components={"number": (1.0, verdict), "graded": (0.5, graded)}, size=12, groups=8),
    "a reward of form": Shape(components={"number": (1.0, verdict), "form": (0.2, form)}),
    "reasoning that grows": Shape(length=line(5, 20), accuracy=line(0.2, 0.6), held_out=line(0.2, 0.6)),
    "shorter and better": Shape(length=line(20, 6), accuracy=line(0.3, 0.75)),
    "no rollouts": Shape(record_every=0, held_out=None),
    "eight steps": Shape(steps=8, record_every=1, groups=24),
}


def collapsing(t: float) -> float:
    return 0.3 * np.exp(-6 * t)


def loses_it(t: float) -> float:
    return 0.45 if t < 0.04 else 0.05


def one_sided(columns, t, random):
    """Only tokens of good rollouts are clipped, from above."""
    lists = (columns.get(name, []) for name in ("advantage", "logp", "sampler_logp"))
    moves = [(a, x - y) for a, x, y in zip(*lists, strict=True)]
    columns["policy_gradient"] = [np.where((move > 0.1) & (a > 0), 0.0, a) for a, move in moves]


def lies(columns, t, random):
    columns["accuracy"] = np.abs(columns["accuracy"] - (random.random(len(columns["accuracy"])) < 0.2))


def never(columns, t, random):
    """Two groups of five are of another kind, and never solved."""
    hard = np.asarray(columns["group"]) % 5 < 2
    columns["accuracy"] = np.where(hard, 0.0, columns["accuracy"])
    columns["reward"] = columns["accuracy"].copy()


def uneven(columns, t, random):
    """Groups are all right or all wrong, and more so later; single answers get better all the same."""
    group = np.asarray(columns["group"])
    solved = random.random(group.max() + 1) < 0.98 - 0.4 * t
    columns["accuracy"] = np.where(solved[group], (random.random(len(group)) < 0.3 + 0.7 * t), 0.0).astype(float)
    columns["reward"] = columns["accuracy"].copy()


def spiky(t: float) -> float:
    return 30.0 if 0.5 < t < 0.53 else 0.8


def unlikely_openings(columns, t, random):
    """The likelihood of the tokens that all rollouts share falls."""
    for logp in columns.get("sampler_logp", []):
        logp[:6] = -0.1 - 1.5 * t


def noise(random, right, lengths, t):
    return random.normal(size=len(right))


def hacked(random, right, lengths, t):
    return random.random(len(right)) < 0.1 + 0.9 * t


def consistent(random, right, lengths, t):
    return (random.random(len(right)) < (0.9 if t < 0.4 else 0.5)).astype(float)


def agents(**metrics):
    """Metrics of a healthy run with tools, but for what is given."""
    healthy = {
        "episode/turns_mean": 4.0,
        "episode/done": 0.95,
        "episode/failed": 0.0,
        "episode/out_of_turns": 0.03,
        "episode/out_of_tokens": 0.02,
        "episode/out_of_time": 0.0,
        "episode/answers_share": 0.4,
        "tools/calls_mean": 2.0,
        "tools/failed": 0.05,
        "tools/unparseable": 0.02,
    }
    given = {name.replace("__", "/"): value for name, value in metrics.items()}
    return {name: line(value, value) for name, value in {**healthy, **given}.items()}


def episodes(says, rewards):
    """Four turns for every rollout: what the policy says in each, and what each is worth."""

    def write(columns, t, random):
        def turn(row, i):
            said = [{"role": "assistant", "content": says(row, i)}, {"role": "tool", "content": "so"}]
            return {
                "start": 2 * i,
                "end": 2 * i + 1,
                "reward": rewards(i),
                "messages": json.dumps(said),
                "context": None,
            }

        count = len(columns["group"])
        columns["turns"] = [[turn(row, i) for i in range(4)] for row in range(count)]

    return write


def dense(i):
    return 0.25


AGENT = Shape(metrics=agents(), columns=episodes(lambda row, i: f"step {i} of {row}", dense))
HEALTHY |= {
    "an agent with tools": AGENT,
    "an agent whose environment does not reward": replace(
        AGENT, columns=episodes(lambda row, i: f"step {i}", lambda i: None)
    ),
}

SCALED = {
    "rollouts/age_mean": 1.0,
    "rollouts/age_max": 1.0,
    "queue/depth": 3.0,
    "time/wait_rollouts": 0.1,
    "time/wait_trainer": 0.3,
    "engine/workers": 2.0,
    "engine/restarts": 0.0,
    "engine/redrawn": 0.0,
    "mismatch/engine": 2e-7,
    "mismatch/staleness": 0.01,
    "ranks/imbalance": 1.1,
    "ranks/idle": 0.05,
}


def scaled(ahead=1, **metrics):
    """A healthy run of two ranks and two workers that sample ahead, but for what is given."""
    given = {name.replace("__", "/"): value for name, value in metrics.items()}
    courses = {name: line(value, value) for name, value in SCALED.items()}
    courses |= {name: line(x, x) if isinstance(x, float) else x for name, x in given.items()}
    return Shape(config={"ahead": ahead, "workers": 2, "prompts_per_step": 12}, metrics=courses)


def dies_often(t):
    return float(int(10 * t))


HEALTHY |= {
    "two ranks and two workers": scaled(),
    "several updates a step": Shape(metrics={"divergence/ratio": line(3e4, 2e5)}),
    "several large updates a step, and still learning": Shape(metrics={"divergence/ratio": line(3e3, 6e3)}),
    "a worker that died once": scaled(
        engine__restarts=lambda t: float(t > 0.5), engine__workers=lambda t: 1.0 if 0.5 < t < 0.55 else 2.0
    ),
    "one step ahead, samplers that are faster": scaled(queue__depth=lambda t: 12.0 * (t > 0)),
    "two steps ahead, no faster than the trainer": scaled(
        2, rollouts__age_mean=2.0, rollouts__age_max=2.0, queue__depth=14.0
    ),
    "two steps ahead, a queue that empties": scaled(2, rollouts__age_mean=1.6, rollouts__age_max=2.0),
    "staleness that grows with the steps, and stays small": scaled(mismatch__staleness=line(0.002, 0.015)),
}


SICK = {
    "starved-trainer": scaled(time__wait_rollouts=0.6),
    "starved-samplers": scaled(time__wait_trainer=0.8),
    "stale-queue": scaled(3, rollouts__age_mean=2.9, rollouts__age_max=3.0, queue__depth=36.0),
    "flapping-worker": scaled(engine__restarts=dies_often),
    "diverging-mismatch": scaled(mismatch__engine=line(1e-7, 2e-3)),
    "uneven-ranks": scaled(ranks__imbalance=1.7, ranks__idle=0.4),
    "outer-step-large": Shape(
        accuracy=lambda t: min(0.6, 0.3 + t), metrics={"divergence/ratio": line(3e3, 6e3)}, held_out=None
    ),
    "zero-signal": Shape(hardness=0.4),
    "sign-flips": Shape(size=3, groups=24, components={"number": (1.0, verdict), "graded": (3.0, noise)}),
    "small-groups": Shape(size=2, groups=40),
    "entropy-collapse": Shape(entropy=collapsing, accuracy=line(0.3, 0.5)),
    "entropy-explosion": Shape(entropy=line(0.3, 2.5), accuracy=line(0.5, 0.2), held_out=None),
    "length-collapse": Shape(length=line(20, 2), accuracy=line(0.5, 0.4), held_out=None),
    "length-inflation": Shape(length=line(5, 25), accuracy=line(0.5, 0.5), held_out=None),
    "truncation": Shape(truncated=line(0.05, 0.4)),
    "ratio-shape": Shape(spread=0.9, kl=line(0, 0.1)),
    "clip-one-sided": Shape(spread=0.1, columns=one_sided),
    "likelihood-displacement": Shape(right_logp=line(-0.2, -1.0), wrong_logp=line(-0.4, -1.5)),
    "mismatch": Shape(mismatch=1e-3, config={"dtype": "float32"}),
    "staleness": Shape(spread=0.5),
    "gradient-spikes": Shape(grad_norm=spiky),
    "conflict-tokens": Shape(columns=unlikely_openings),
    "reward-hacking": Shape(
        components={"number": (1.0, verdict), "form": (3.0, hacked)}, accuracy=line(0.5, 0.2), held_out=line(0.5, 0.2)
    ),
    "length-explains-reward": Shape(
        components={"number": (1.0, verdict), "brevity": (20.0, brevity)}, length=line(20, 15)
    ),
    "drowned-component": Shape(components={"number": (1.0, verdict), "graded": (5.0, noise)}),
    "diversity-collapse": Shape(groups=30, columns=uneven),
    "overconfidence": Shape(right_logp=line(-0.3, -0.1), wrong_logp=lambda t: -0.1 - max(0.0, 0.5 - t)),
    "inconsistent-answer": Shape(components={"number": (1.0, verdict), "consistency": (0.1, consistent)}),
    "learning-rate-high": Shape(accuracy=loses_it, kl=line(0.5, 5), entropy=line(0.3, 1.5), held_out=None),
    "learning-rate-low": Shape(accuracy=line(0.4, 0.4), kl=line(0, 1e-5), entropy=line(0.3, 0.3), held_out=None),
    "no-learning": Shape(accuracy=line(0.0, 0.0), hardness=0.5, held_out=None),
    "never-solved": Shape(columns=never, accuracy=line(0.8, 0.85), groups=20, hardness=20.0),
    "contradicting-verdicts": Shape(columns=lies),
    "tools-unused": replace(AGENT, metrics=agents(tools__calls_mean=0.02)),
    "broken-calls": replace(AGENT, metrics=agents(tools__unparseable=0.3)),
    "long-answers": replace(AGENT, metrics=agents(episode__answers_share=0.9, episode__out_of_tokens=0.15)),
    "episodes-cut": replace(AGENT, metrics=agents(episode__out_of_turns=0.4)),
    "failing-environments": replace(AGENT, metrics=agents(episode__failed=0.1)),
    "looping": replace(AGENT, columns=episodes(lambda row, i: "look" if row % 3 else f"step {i}", dense)),
    "one-turn-reward": replace(AGENT, columns=episodes(lambda row, i: f"step {i}", lambda i: 1.0 if i == 3 else 0.0)),
    "verifier-gap": Shape(metrics={"oracle/gap": line(0.02, 0.4)}),
    "cold-sampling": Shape(entropy=line(0.15, 0.02), config={"temperature": 0.2}),
}


def look(folder, shape, seed=0):
    return examine(open_run(write_run(folder, shape, seed)))


def test_there_is_a_sick_run_for_every_diagnosis():
    assert set(SICK) == {each.name for each in diagnoses("run")}
    assert len(HEALTHY) >= 10


@pytest.mark.parametrize("name", SICK)
def test_a_disease_is_found_and_named_with_its_place(tmp_path, name):
    report = look(tmp_path / f"a {name}", SICK[name])
    assert name in [finding.name for finding in report.findings], (report.missing.get(name), report.problems)
    for finding in report.findings:
        assert finding.evidence
        for each in finding.evidence:
            assert each.text
            assert each.where.startswith(f"#/run/a%20{name}/")
            assert all(0 <= step <= report.steps for step in each.steps)
    places = [SEVERITIES.index(finding.severity) for finding in report.findings]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("diversity-collapse", ("group/pass@1", "group/pass@G")),
        ("likelihood-displacement", ("logp/correct", "logp/wrong")),
    ],
)
def test_what_the_metrics_do_not_say_is_taken_from_the_rollouts(tmp_path, name, without):
    shape = replace(SICK[name], metrics=dict.fromkeys(without), record_every=2, groups=40)
    assert name in [finding.name for finding in look(tmp_path / "run", shape).findings]


def test_no_false_alarm_on_healthy_runs(tmp_path):
    reports = {name: look(tmp_path / name, shape, seed) for seed, (name, shape) in enumerate(HEALTHY.items(), 100)}
    assert [(name, finding) for name, report in reports.items() for finding in report.findings] == []
    assert not any(report.problems for report in reports.values())
    # Silence is worth something only where diagnoses were made.
    made = sum(report.made for report in reports.values())
    assert made > 0.85 * len(reports) * len(diagnoses("run")), made


@pytest.mark.parametrize(
    ("name", "shape", "severity", "said"),
    [
        ("starved-trainer", scaled(time__wait_rollouts=0.3), "note", "30 %"),
        ("starved-trainer", scaled(time__wait_rollouts=0.7), "warning", "70 %"),
        ("starved-samplers", scaled(time__wait_trainer=0.6), "note", "60 %"),
        ("stale-queue", scaled(1, rollouts__age_max=lambda t: 1.0 + (t > 0.9)), "alarm", "older than `ahead`"),
        (
            "stale-queue",
            scaled(2, rollouts__age_mean=2.0, rollouts__age_max=2.0, queue__depth=24.0),
            "warning",
            "24 groups were finished when a step of 12 began",
        ),
        ("flapping-worker", scaled(engine__workers=1.0), "warning", "of 2 workers"),
        ("flapping-worker", scaled(engine__restarts=3.0, engine__redrawn=40.0), "warning", "40 requests"),
        ("diverging-mismatch", scaled(mismatch__staleness=line(0.01, 0.06)), "warning", "mismatch/staleness"),
        ("diverging-mismatch", scaled(mismatch__engine=line(1e-7, 0.3)), "alarm", "mismatch/engine"),
        ("diverging-mismatch", Shape(metrics={"mismatch": line(0.01, 0.04)}), "warning", "`mismatch` was"),
        ("staleness", replace(scaled(), spread=0.5), "warning", "and rollouts that are 1 steps old"),
        ("uneven-ranks", scaled(ranks__idle=0.25, ranks__imbalance=1.35), "note", "1.35 times"),
        ("uneven-ranks", scaled(ranks__idle=None, ranks__imbalance=1.7), "warning", "1.70 times"),
    ],
)
def test_what_scale_shows_is_said_with_its_numbers(tmp_path, name, shape, severity, said):
    found = {finding.name: finding for finding in look(tmp_path / "run", shape).findings}
    assert found[name].severity == severity
    assert said in found[name].what + " ".join(each.text for each in found[name].evidence)


def test_the_cause_comes_before_its_symptoms(tmp_path):
    findings = look(tmp_path / "run", SICK["learning-rate-high"]).findings
    assert findings[0].name == "learning-rate-high"
    assert len([finding for finding in findings if finding.severity == "alarm"]) > 1


@pytest.mark.parametrize("each", [*diagnoses("run"), *diagnoses("data")], ids=lambda each: each.name)
def test_what_it_says_to_try_exists(each):
    known = set(keys())
    assert each.tries
    for attempt in each.tries:
        assert attempt.text
        assert set(attempt.settings) <= known
        for name in attempt.methods:
            assert name in registry.names()
    assert all((each.summary.endswith("."), each.threshold, each.meaning, each.source))


def test_what_was_not_looked_at_is_said(tmp_path):
    report = look(tmp_path / "few", Shape(steps=3, record_every=0))
    assert report.findings == ()
    assert "needs `entropy` of 8 steps, and has 3" in report.missing["entropy-collapse"]
    assert report.missing["conflict-tokens"] == "needs rollouts, of which the run stored none"
    assert report.made + len(report.missing) == len(diagnoses("run"))


def test_what_is_broken_is_said_and_the_rest_shown(tmp_path):
    folder = write_run(tmp_path / "cut", SICK["contradicting-verdicts"])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "accu')
    cut = sorted((folder / "rollouts").iterdir())[-1]
    cut.write_bytes(cut.read_bytes()[:500])
    (folder / "config.yaml").write_text("reward: [")
    report = examine(open_run(folder))
    assert "contradicting-verdicts" in [finding.name for finding in report.findings]
    assert len(report.problems) == 3
    assert all(str(folder) in problem for problem in report.problems)


def test_a_diagnosis_that_fails_takes_no_other_with_it(tmp_path):
    folder = write_run(tmp_path / "odd", SICK["entropy-collapse"])
    for path in (folder / "rollouts").iterdir():
        path.unlink()
    (folder / "config.yaml").write_text("temperature: 0.2\ntop_p: 1.0\nreward: 3\n")
    report = examine(open_run(folder))
    assert "entropy-collapse" in [finding.name for finding in report.findings]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("4-1=3+8=11", True),
        ("4-1=3+8=12", False),
        ("no sums, 5 = five", None),
        ("2 + 3 * 4 = 14", True),
        ("x-2+3=7", None),
        ("2+3=1+4", True),
        ("10/3 = 3.33", True),
        ("so 1,000 + 2 = 1,002", True),
        ("(2+3)*4=20", None),
        ("-4+1=-3", True),
        ("f(2)-1=5", None),
        ("1/0 = 3", None),
        ("5-3=2 apples\n7*2=15", False),
    ],
)
def test_equations_are_checked(text, holds):
    assert equations_hold(text) is holds


def test_rollouts_that_all_rewards_abstained_from_are_said_to_lack_a_reward(tmp_path):
    def abstained(columns, t, random):
        columns["reward"] = np.full(len(columns["reward"]), np.nan)

    report = examine(open_run(write_run(tmp_path / "run", Shape(steps=4, record_every=1, columns=abstained))))
    assert "needs rollouts with a reward" in report.missing.values()
