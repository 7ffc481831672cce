"""What a diagnosis of data sees, and how it is gathered before any training."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cohort.data.messages import tools_of
from cohort.data.prompts import PromptSpec, make_prompt, read_source, source_of, template_of
from cohort.data.rows import Row, places_of
from cohort.doctor.attacks import Paid, graded, pay, worth
from cohort.doctor.examine import Report, diagnose
from cohort.doctor.finding import Evidence, Missing, diagnoses
from cohort.errors import UsageError
from cohort.rewards.judges.judges import Judges
from cohort.rewards.scorer import Scorer
from cohort.rewards.spec import parse
from cohort.signals.answers import gold_written, is_missing
from cohort.training.config import TrainConfig

# How a right answer may be written; a sound verifier accepts one of these at least.
RENDERINGS: tuple[tuple[str, str], ...] = (
    ("plain", "{}"),
    ("sentence", "The answer is {}."),
    ("boxed", "The answer is \\boxed{{{}}}."),
    ("tags", "<answer>{}</answer>"),
    ("hashes", "#### {}"),
)
AGAIN, SWAPPED, NOTHING, SOLUTION = "again", "another row's answer", "nothing", "solution"


@dataclass(frozen=True)
class Verdicts:
    """What the verifier says of a row's gold answer and of wrong ones.

    Attributes:
        row: number of the row, from 1.
        values: rendering -> its value; None where it has none.
    """

    row: int
    values: Mapping[str, float | None]

    @property
    def gold(self) -> list[float]:
        """Values of the renderings of the gold answer."""
        names = [name for name, _ in RENDERINGS] + [SOLUTION]
        return [value for name in names if (value := self.values.get(name)) is not None]


@dataclass(frozen=True)
class Data:
    """What is known of data before any training.

    Attributes:
        name: of the data.
        rows: with `prompt` and `answer`, where there are such columns.
        prompts: their texts, as the policy is given them where a model is known.
        held_out: texts of held-out prompts; None if there are none.
        held_rows: their rows.
        lengths: tokens of each prompt; None without a model.
        context: most tokens of the model; None if it has no limit or is not known.
        max_new_tokens: of a completion.
        verifier: name of the reward that says what is correct; None without rewards.
        correct_at: its value from which a completion is correct.
        verdicts: for the rows that were looked at; None without rewards.
        solved: right completions of each of the prompts that were tried, and how many each had; None if none was.
        paid: way of answering -> what the run's reward pays for it (see `cohort.doctor.attacks`); None without rewards.
    """

    name: str
    rows: Sequence[Row]
    prompts: Sequence[str]
    held_out: Sequence[str] | None = None
    held_rows: Sequence[Row] = ()
    lengths: Sequence[int] | None = None
    context: int | None = None
    max_new_tokens: int = 0
    verifier: str | None = None
    correct_at: float = 1.0
    verdicts: Sequence[Verdicts] | None = None
    solved: tuple[Sequence[int], int] | None = None
    paid: Mapping[str, Paid] | None = None

    def checked(self) -> Sequence[Verdicts]:
        """Verdicts.

        Raises:
            Missing: there are none.
        """
        if not self.verdicts:
            raise Missing("needs verdicts: --reward, and a column `answer`")
        return self.verdicts

    def worth(self, ways: Sequence[str], *, least: float) -> tuple[dict[str, float], tuple[Evidence, ...]]:
        """See `cohort.doctor.attacks.worth`."""
        return worth(self.paid or {}, self.rows, ways, least)

    def answers(self) -> list[Any]:
        """Gold answers.

        Raises:
            Missing: no row has one.
        """
        if not any("answer" in row for row in self.rows):
            raise Missing("needs a column `answer` (--answer-field names it)")
        return [row.get("answer") for row in self.rows]

    @cached_property
    def normal(self) -> list[str]:
        """Prompts without case and spacing."""
        return [normal(text) for text in self.prompts]


def normal(text: str) -> str:
    """A text without case, spacing, and punctuation at its end."""
    return " ".join(text.casefold().split()).rstrip(" .?!")


def named(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """Rows by their numbers from 1, as messages call them: "lines 3, 8, 9 ..." of a text file."""
    return places_of([rows[number - 1] for number in numbers])


def examine_data(
    config: TrainConfig, *, samples: int = 0, limit: int = 300, log: Callable[[str], None] = lambda _: None
) -> Report:
    """Diagnose data and rewards before any training.

    Args:
        config: a TrainConfig: data, eval_data, reward, and what says how rows become prompts; its model, if one is to be
            looked at, is in `config.given()`.
        samples: completions to draw of each prompt, to see which are solved; 0 draws none.
        limit: most rows whose answers are scored, and prompts that are tried; drawn at random.

    Raises:
        UsageError: data or reward cannot be read.
    """
    data, problems = gather(config, samples=samples, limit=limit, log=log)
    findings, missing, failures = diagnose(data, diagnoses("data"))
    made = len(diagnoses("data")) - len(missing) - len(failures)
    return Report(data.name, findings, missing, made, (*problems, *failures))


def gather(config: TrainConfig, *, samples: int, limit: int, log: Callable[[str], None]) -> tuple[Data, list[str]]:
    """What the diagnoses see, and what went wrong on the way."""
    from cohort.training.build import prompt_spec
    from cohort.training.defaults import with_defaults
    from cohort.training.models import load_policy

    known = "model" in config.given()
    config = with_defaults(config) if known else config
    if config.dataset.data is None:
        raise UsageError("no data was given: --data takes a file, a hub id or reasoning_gym:TASK?...")
    if samples and not known:
        raise UsageError("--samples draws completions: name a model with --model")
    spec = prompt_spec(config)
    source = read_source(config.dataset.data, spec, seed=config.seed, log=log)
    held = (
        None
        if config.evaluation.eval_data is None
        else read_source(config.evaluation.eval_data, spec, seed=config.seed, log=log)
    )
    policy = load_policy(config, log) if known else None
    read = policy.renderer.prompt if policy is not None else _plain
    made = [_prompt(row, spec, read, f"{source.where}, {row.place}") for row in source.rows]
    problems: list[str] = []
    found: dict[str, Any] = {}
    if held is not None:
        found["held_out"] = [_prompt(row, spec, read, f"{held.where}, {row.place}")[0] for row in held.rows]
        found["held_rows"] = held.rows
    if policy is not None:
        found["lengths"] = [len(tokens) for _, tokens in made]
        found["context"] = policy.renderer.context_length
    if config.rewards.reward:
        found |= _rewarded(config, source.rows, [text for text, _ in made], limit, problems)
    if samples:
        found["solved"] = _solved(config, policy, source.rows, samples, min(limit, 64))
    texts = [text for text, _ in made]
    data = Data(
        source.where,
        source.rows,
        texts,
        max_new_tokens=config.sampling.max_new_tokens,
        correct_at=config.rewards.correct_at,
        **found,
    )
    return data, problems


def _plain(source: Any, system: str | None = None, tools: Any = ()) -> tuple[str, tuple[int, ...]]:
    """A prompt's text where no model's template is known, and no tokens."""
    messages = [source] if isinstance(source, str) else [str(message["content"]) for message in source]
    return "\n\n".join(([system] if system else []) + messages), ()


def _prompt(
    row: Row, spec: PromptSpec, read: Callable[..., tuple[str, tuple[int, ...]]], where: str
) -> tuple[str, tuple[int, ...]]:
    template = template_of(spec.template)
    if template is None and row["prompt"] is None:
        return "", ()
    source = source_of(row, template, where)
    try:
        return (
            read(source, spec.system, () if isinstance(source, str) else tools_of(row))
            if _content(source)
            else ("", ())
        )
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _content(source: Any) -> str:
    return (source if isinstance(source, str) else "".join(str(message["content"] or "") for message in source)).strip()


def _rewarded(
    config: TrainConfig, rows: Sequence[Row], prompts: Sequence[str], limit: int, problems: list[str]
) -> dict[str, Any]:
    """What the rewards say of right and wrong answers, and of completions that are none; adds what went wrong."""
    from cohort.training.build import composition_of
    from cohort.training.verdict import accuracy_component

    specs = parse(config.rewards.reward)
    composition, name = composition_of(config, specs), accuracy_component(config.rewards.accuracy, specs)
    asked = config.rewards
    # Nothing is kept: whether a verifier contradicts itself is asked, too.
    how: dict[str, Any] = {"timeout": asked.reward_timeout, "on_error": "skip", "once": None}
    how["process"] = asked.reward_process
    how["judges"] = Judges(
        asked.judging, without_policy="nothing is drawn here, so there is no policy that could judge"
    )
    most = config.sampling.max_new_tokens
    for spec in specs:
        # Rows without an answer are a diagnosis of their own.
        asks = spec.kind is not None and "answer" in spec.kind.columns
        spec.check_rows([(row.place, row) for row in rows if "answer" in row or not asks])
    with contextlib.ExitStack() as stack:
        scorer = stack.enter_context(Scorer(specs, **how))
        verifier = [spec for spec in specs if spec.name == name]
        judge = scorer if len(specs) == 1 else stack.enter_context(Scorer(verifier, **how))
        scorer.check_arguments(list(dict.fromkeys(column for row in rows for column in row)))
        verdicts, failed = _verdicts(judge, rows, limit, most)
        problems += failed
        paid: dict[str, Paid] = {}
        # What fails on answers fails on everything else.
        if not failed:
            paid, failed = pay(scorer, composition, rows, prompts, limit=limit, max_new_tokens=most)
            problems += failed
    return {"verifier": name, "verdicts": verdicts, "paid": paid}


def _verdicts(scorer: Scorer, rows: Sequence[Row], limit: int, max_new_tokens: int) -> tuple[list[Verdicts], list[str]]:
    """(verdicts of the scorer's one reward on some rows, what went wrong)."""
    (name,) = (spec.name for spec in scorer.specs)
    answered = [i for i, row in enumerate(rows) if not is_missing(row.get("answer"))]
    chosen = sorted(random.Random(0).sample(answered, min(limit, len(answered))))
    asked: list[tuple[int, str, str]] = []
    for place, i in enumerate(chosen):
        answer = gold_written(rows[i]["answer"])
        asked += [(i, rendering, text.format(answer)) for rendering, text in RENDERINGS]
        asked += [(i, AGAIN, answer), (i, NOTHING, "")]
        if rows[i].get("solution"):
            asked.append((i, SOLUTION, str(rows[i]["solution"])))
        other = next(
            (text for j in chosen[place + 1 :] + chosen[:place] if (text := gold_written(rows[j]["answer"])) != answer),
            None,
        )
        if other is not None:
            asked.append((i, SWAPPED, other))
    values: dict[int, dict[str, float | None]] = {i: {} for i in chosen}
    problems: list[str] = []
    failed: set[int] = set()
    ways = iter(rendering for _, rendering, _ in asked)
    for part, scores in graded(scorer, rows, [(i, text) for i, _, text in asked], max_new_tokens):
        for (i, _), value in zip(part, scores.components[name], strict=True):
            values[i][next(ways)] = value
        failed |= {part[at][0] for at in scores.failed}
        problems += scores.messages
        if len(problems) > 3:
            problems = [*problems[:3], "further failures of the reward are left out"]
            break
    made = [Verdicts(i + 1, found) for i, found in values.items() if found and i not in failed]
    return made, [text.split("\n", 1)[0] for text in problems]


def _solved(config: TrainConfig, policy: Any, rows: Sequence[Row], samples: int, most: int) -> tuple[list[int], int]:
    """Right completions of each prompt that was tried, and how many each had."""
    from cohort.training.build import make_collector, make_grader, prompt_spec
    from cohort.training.evaluate import evaluate_prompts

    spec = prompt_spec(config)
    template = template_of(spec.template)
    prompts = []
    for i in random.Random(0).sample(range(len(rows)), len(rows)):
        # Rows that make no prompt are another diagnosis's.
        with contextlib.suppress(UsageError):
            prompts.append(make_prompt(rows[i], policy.renderer, spec, template, rows[i].place))
        if len(prompts) == most:
            break
    grader = make_grader(config)
    try:
        found = evaluate_prompts(make_collector(config, policy, grader), prompts, samples=samples, seed=config.seed)
    finally:
        grader.scorer.close()
    right: dict[str, int] = {}
    for rollout in found.rollouts:
        right[rollout.prompt.id] = right.get(rollout.prompt.id, 0) + (rollout.accuracy >= 1.0)
    return list(right.values()), samples


__all__ = ["AGAIN", "NOTHING", "RENDERINGS", "SWAPPED", "Data", "Verdicts", "examine_data", "named", "normal"]
