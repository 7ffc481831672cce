"""`--reward code`: a completion's program against the tests of its row, in a sandbox."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.calling import TIME
from cohort.rewards.code import sandbox
from cohort.rewards.code.grading import SHARE, Local, Place, grade_all
from cohort.rewards.code.program import parses, program_of
from cohort.rewards.code.remote import Remote
from cohort.rewards.code.sandbox import Limits
from cohort.rewards.code.shapes import BESIDE, TESTS, BadTests, Suite, has_tests, read_tests, reference
from cohort.rewards.kinds import Kind, Placed, Values
from cohort.rewards.verifiers import text_of

# A server of SandboxFusion that runs programs where the reward names none.
SERVER = "COHORT_CODE_SERVER"
# Seconds of a batch where nothing limits it.
BATCH = 60.0
# Rows whose own solutions are tried before a run, spread over the data.
TRIED = 256
SHAPES = "tests, test_code, entry_point with cases, test_list, input_output, public_test_cases, verification_info"


def _asked(argument: str) -> tuple[bool, str] | None:
    """Whether the reward is graded, and the server that it names; None where it is written otherwise."""
    how, _, server = argument.partition("@")
    if how not in ("", "partial") or ("@" in argument and not server):
        return None
    return how == "partial", server or os.environ.get(SERVER, "")


@cache
def _place(server: str) -> Place:
    if server:
        return Remote(server)
    sandbox.check()
    return Local()


def make(argument: str) -> Callable[..., Values] | None:
    """The reward: the share of a row's tests that a completion's program passes (`partial`), or 1 if it passes all, else 0.

    None for a row without tests.

    Raises:
        UsageError: programs can be run nowhere.
    """
    asked = _asked(argument)
    if asked is None:
        return None
    partial, server = asked
    place = _place(server)

    def code(
        completions: Sequence[Any],
        prompts: Sequence[Any] | None = None,
        log_extra: Any = None,
        log_metric: Any = None,
        **columns: Any,
    ) -> Values:
        rows = _rows(columns, prompts, len(completions))
        asked = [i for i, tests in enumerate(rows) if tests is not None]
        programs = [(program_of(text_of(completions[i])), tests) for i in asked if (tests := rows[i]) is not None]
        limit = TIME.get()
        verdicts = dict(
            zip(
                asked,
                grade_all(programs, place, Limits(), every=partial, seconds=SHARE * (limit or BATCH)),
                strict=True,
            )
        )
        if log_extra is not None:
            found = [verdicts.get(i) for i in range(len(completions))]
            log_extra("code_verdict", [v and v.why for v in found])
            log_extra("code_detail", [v and v.detail for v in found])
        if log_metric is not None and any(v.cut for v in verdicts.values()):
            log_metric("code_cut_short", sum(v.cut for v in verdicts.values()) / len(verdicts))
        shares = [verdicts[i].share if i in verdicts else None for i in range(len(completions))]
        return shares if partial else [share if share is None else float(share == 1.0) for share in shares]

    return code


def _rows(columns: Mapping[str, Sequence[Any]], prompts: Sequence[Any] | None, count: int) -> list[Suite | None]:
    """The tests of each completion's row, read once for the rows of one group."""
    names = [name for name in (*TESTS, *BESIDE) if name in columns]
    known: dict[Any, Suite | None] = {}
    out = []
    for i in range(count):
        row = {name: columns[name][i] for name in names}
        prompt = _code_of(prompts[i], row.get("entry_point")) if prompts is not None else None
        key = (prompt, *(id(value) for value in row.values()))
        if key not in known:
            try:
                known[key] = read_tests({**row, "prompt": prompt}) if has_tests(row) else None
            except BadTests as error:
                raise ValueError(f"the tests of completion {i + 1}: {error}") from error
        out.append(known[key])
    return out


def _code_of(prompt: Any, entry: Any) -> str | None:
    """The code that a prompt begins, where it holds some."""
    if not isinstance(prompt, str):
        prompt = prompt[-1].get("content") if isinstance(prompt, list) and prompt else None
    if not isinstance(prompt, str) or not isinstance(entry, str) or f"def {entry}" not in prompt:
        return None
    if parses(prompt) or parses(f"{prompt}\n    pass"):
        return prompt
    return program_of(prompt)


def untested(argument: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], str]]:
    """Rows that have no tests."""
    return [([i for i, row in enumerate(rows) if not has_tests(row)], "have no tests")]


# Solutions of rows that were tried with their tests, and passed them.
_PASSED: set[str] = set()


def check(argument: str, rows: Sequence[Placed]) -> None:
    """Programs can be run, and the tests of the rows can be passed.

    Raises:
        UsageError: they cannot; names the row.
    """
    asked = _asked(argument)
    if asked is None:
        return
    place = _place(asked[1])
    tested = [(where, row) for where, row in rows if has_tests(row)]
    if rows and not tested:
        where, row = rows[0]
        raise UsageError(
            f"the reward 'code' runs a row's tests, and no row has any ({where} has: {', '.join(row)}): name them "
            f"in one of these columns: {SHAPES} (docs/rewards.md has their forms)"
        )
    references: list[tuple[str, str, str, Suite]] = []
    for where, row in tested:
        try:
            tests = read_tests({**row, "prompt": _code_of(row.get("prompt"), row.get("entry_point"))})
        except BadTests as error:
            raise UsageError(
                f"{where}: no program can pass its tests: {error}. Correct the row, or leave it out"
            ) from error
        if tests.scripts and isinstance(place, Remote):
            raise UsageError(
                f"{where}: a server of SandboxFusion runs asserts of the form assert f(...) == value, and these have another "
                f"({tests.scripts[0].strip().splitlines()[0][:80]!r} ...): leave the row out, or run programs on this "
                "machine (code, without @URL)"
            )
        known = reference(row)
        if known is not None:
            told = repr((known, [row.get(name) for name in (*TESTS, *BESIDE)]))
            references.append((hashlib.sha256(told.encode(errors="replace")).hexdigest(), where, known, tests))
    references = references[:: max(1, -(-len(references) // TRIED))]
    left = [each for each in references if each[0] not in _PASSED]
    verdicts = grade_all([(known, tests) for *_, known, tests in left], place, Limits(), every=False, seconds=600.0)
    place.close()
    for (mark, where, *_), verdict in zip(left, verdicts, strict=True):
        if verdict.why != "passed":
            raise UsageError(
                f"{where}: its own solution does not pass its tests ({verdict.detail}), so that hardly any program can: "
                "correct the row, or leave it out; without the column of the solution nothing is tried"
            )
        _PASSED.add(mark)


KINDS = (
    Kind(
        "code",
        ("code", "code:partial", "code:@URL", "code:partial@URL"),
        make,
        verifies=True,
        inapplicable=untested,
        check=check,
    ),
)
