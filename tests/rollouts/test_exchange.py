"""The folder through which runs exchange rollouts, and what is refused of it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rollouts import exchange
from cohort.rollouts.exchange import Exchange, SharedGroup, packed, unpacked

ME, PEER = "0" * 12, "a" * 12
GROUP = SharedGroup("2+2=", ("4", "5"), (True, False), {"answer": "4", "odd": {1}})  # type: ignore[dict-item]


def put(folder: Path, data: bytes, *, node: str = PEER, step: int = 1, digest: str | None = None) -> str:
    name = f"{node}.{step:06d}.{digest or hashlib.sha256(data).hexdigest()[:16]}.json"
    (folder / name).write_bytes(data)
    return name


def test_a_file_is_no_folder_to_share_in(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is a file: name a folder"):
        Exchange(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("place", ["folder", "memory://swarm"])
def test_what_a_run_writes_others_read(tmp_path: Path, place: str) -> None:
    where = str(tmp_path / "a" / "b") if place == "folder" else f"{place}-{tmp_path.name}"
    mine, theirs = Exchange(where), Exchange(where)
    assert mine.newest(ME) == {}
    for step in range(3):
        theirs.write(PEER, step, packed([GROUP, SharedGroup("step", (str(step),), (True,))]))
    (name,) = mine.newest(ME).values()
    assert theirs.newest(PEER) == {}
    groups = unpacked(mine.read(name), longest=8)
    assert groups[0] == SharedGroup("2+2=", ("4", "5"), (True, False), {"answer": "4"})
    assert groups[1].answers == ("2",)
    if place == "folder":
        # A node leaves its newest file alone.
        assert os.listdir(where) == [name]


def group(**changes: Any) -> dict[str, Any]:
    return {"question": "q", "columns": {}, "answers": ["a"], "ended": [True], **changes}


def test_messages_are_questions_and_ends_need_not_be_said() -> None:
    chat = [{"role": "user", "content": "q"}]
    held = group(question=chat)
    del held["ended"]
    (found,) = unpacked(json.dumps({"format": 1, "groups": [held]}).encode(), longest=8)
    assert (found.question, found.ended) == (chat, (True,))


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"{}", "no file of shared groups"),
        (b'{"format": 2, "groups": []}', "format 1"),
        ({"format": 1, "groups": [1]}, "a group is no mapping"),
        ({"format": 1, "groups": [group()] * 65}, "65 groups"),
        ({"format": 1, "groups": [group(question=3)]}, "a question is neither"),
        (
            {"format": 1, "groups": [group(question=[{"role": "user", "content": "q", "x": 1}])]},
            "a question is neither",
        ),
        ({"format": 1, "groups": [group(question=[])]}, "a question is neither"),
        ({"format": 1, "groups": [group(columns={"answer": "x" * 200_000})]}, "larger than"),
        ({"format": 1, "groups": [group(answers=[])]}, "1 to 256 answers"),
        ({"format": 1, "groups": [group(answers=["a"] * 257)]}, "1 to 256 answers"),
        ({"format": 1, "groups": [group(answers=["x" * 9])]}, "at most 8 characters"),
        ({"format": 1, "groups": [group(answers=[None])]}, "at most 8 characters"),
        ({"format": 1, "groups": [group(ended=[1])]}, "whether it ended"),
        ({"format": 1, "groups": [group(ended=[])]}, "whether it ended"),
    ],
)
def test_what_is_no_file_of_groups_is_refused(held: Any, says: str) -> None:
    data = held if isinstance(held, bytes) else json.dumps(held).encode()
    with pytest.raises(ValueError, match=says):
        unpacked(data, longest=8)


def test_files_that_are_not_what_their_names_say_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Exchange(str(tmp_path))
    with pytest.raises(ValueError, match="checksum"):
        here.read(put(tmp_path, b"{}", digest="0" * 16))
    secret = tmp_path / "secret"
    secret.write_bytes(b"{}")
    link = tmp_path / f"{PEER}.000001.{hashlib.sha256(b'{}').hexdigest()[:16]}.json"
    link.symlink_to(secret)
    with pytest.raises(ValueError, match="no plain file"):
        here.read(link.name)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(ValueError, match="no plain file"):
        here.read(link.name)
    monkeypatch.setattr(exchange, "LARGEST", 10)
    with pytest.raises(ValueError, match="more than"):
        here.read(put(tmp_path, b"x" * 11))


def test_other_names_are_not_looked_at_and_of_many_nodes_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Exchange(str(tmp_path))
    for name in ("notes.txt", f"../{PEER}", f"{PEER}.1.x.json", f"{PEER.upper()}.000001.{'0' * 16}.json"):
        (tmp_path / name.replace("/", "_")).write_text("x")
    assert here.newest(ME) == {}
    for k in range(5):
        put(tmp_path, b"{}", node=f"{k:012d}"[::-1])
    monkeypatch.setattr(exchange, "FILES", 3)
    assert len(here.newest(ME)) == 3
