"""The journal of rollouts that are drawn ahead of training: what is whole is read, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cohort.errors import StorageError
from cohort.rollouts.journal import Journal, Ready, packed, unpacked
from cohort.rollouts.sources import Drawn
from cohort.types import Context, Message, Request, Rollout, Segment, Turn
from cohort.types.support import Rule, Support
from tests.rollouts.drawing import PROMPTS

SAID: Message = {"role": "assistant", "content": "so"}


def ready(step: int) -> Ready:
    """Rollouts with all that a step reads of them."""
    prompts = list(PROMPTS.values())
    rule = Rule({3: 1.0}, 2, frozenset({9}))
    long = Rollout(
        Request(
            prompts[0],
            Context((1, 2)),
            step,
            5,
            (Segment((4,), "method"),),
            {"level": 2},
            environment_seed=3,
            parent="x",
        ),
        (
            Segment((4,), "method"),
            Segment(
                (5, 6), logp=(-0.1, -1 / 3), entropy=(0.5, 0.25), support=Support(rule, None, None, None), version=2
            ),
            Segment((7,), "environment"),
            Segment((8,), logp=(-2.0,), version=3),
        ),
        "truncated",
        "so",
        "0/1",
        (Turn(0, 3, (SAID,), 0.5), Turn(4, 5, (SAID,), None, Context((9, 9)), "so it is")),
        components={"format": 1.0, "length": None},
        reward=0.75,
        accuracy=1.0,
        fields={"each": [1.0, 2.0]},
        logged={"note": ["a", 1]},
        episode="e",
        end="turns",
        opening=(SAID,),
    )
    others = [Rollout(Request(prompt, Context(prompt.tokens), step, 1), (Segment((7,)),)) for prompt in prompts[1:]]
    aside = replace(others[0], auxiliary=True)
    drawn = Drawn([long, *others, replace(long, id="0/2")], [others[1], long], {}, [aside], 11, metrics={"m": 0.1})
    handed = {"curriculum": {"place": step}}
    return Ready(replace(drawn, notes=["mind"]), handed, {"waiting": [1]}, {"failures": ["f"]})


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ahead")
    for step in (3, 4):
        journal.append(step, packed(ready(step)))
    found = Journal(tmp_path / "ahead").read()
    assert [*found] == [3, 4]
    for step, state in found.items():
        back, given = unpacked(state, PROMPTS), ready(step)
        # As texts: what is not known is NaN, which equals nothing; and what is not compared is looked at, too.
        assert str(back.drawn) == str(given.drawn)
        for mine, theirs in zip(back.drawn.rollouts, given.drawn.rollouts, strict=True):
            assert mine.logged == theirs.logged
            assert mine.request == theirs.request
            assert [str(s.support) for s in mine.segments] == [str(s.support) for s in theirs.segments]
        assert (back.handed, back.source, back.aside) == (given.handed, given.source, given.aside)
        # What is chosen is among the rollouts, not like one of them.
        assert {id(each) for each in back.drawn.chosen} <= {id(each) for each in back.drawn.rollouts}


def test_a_line_a_group_and_one_for_the_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ahead")
    journal.append(3, packed(ready(3)))
    (file,) = (tmp_path / "ahead").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == len(PROMPTS) + 1
    assert {line["step"] for line in lines} == {3}


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.9999])
def test_what_a_kill_cuts_off_is_as_if_it_was_never_written(tmp_path: Path, place: float) -> None:
    journal = Journal(tmp_path / "ahead")
    journal.append(3, packed(ready(3)))
    (file,) = (tmp_path / "ahead").iterdir()
    whole = file.stat().st_size
    journal.append(4, packed(ready(4)))
    data = file.read_bytes()
    file.write_bytes(data[: whole + int((len(data) - whole) * place)])
    assert [*Journal(tmp_path / "ahead").read()] == [3]
    # Drawn again, it stands in a file of its own.
    again = Journal(tmp_path / "ahead")
    again.append(4, packed(ready(4)))
    again.append(5, packed(ready(5)))
    assert [*Journal(tmp_path / "ahead").read()] == [3, 4, 5]


def test_a_line_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ahead")
    journal.append(3, packed(ready(3)))
    (file,) = (tmp_path / "ahead").iterdir()
    line, *rest = file.read_text().splitlines()
    held = json.loads(line)
    for changed in (
        {**held, "step": 7},
        {**held, "data": held["data"][:-8] + "AAAAAAA="},
        {**held, "sha256": ""},
        {},
        3,
    ):
        file.write_text("\n".join([json.dumps(changed), *rest]) + "\n")
        assert Journal(tmp_path / "ahead").read() == {}


def test_files_whose_steps_a_checkpoint_has_go(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ahead")
    for step in range(1, 7):
        journal.append(step, packed(ready(step)))
        if step % 2 == 0:
            # The checkpoint before has two steps less.
            journal.drop(step - 2)
    assert [path.name for path in sorted((tmp_path / "ahead").iterdir())] == ["step-000005.jsonl"]
    journal.append(7, packed(ready(7)))
    assert [*Journal(tmp_path / "ahead").read()] == [5, 6, 7]
    journal.clear()
    assert not (tmp_path / "ahead").exists()
    assert journal.read() == {}


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone" / "ahead")
    with pytest.raises(StorageError, match="gone/ahead cannot be written"):
        journal.append(1, packed(ready(1)))
