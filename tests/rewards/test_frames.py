"""Messages between a parent and its own child."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rewards.frames import HEADER, CorruptError, frame, read_frame, write_frame


@settings(deadline=None)
@given(st.lists(st.binary(), max_size=4))
def test_messages_arrive_as_they_were_sent(messages):
    stream = io.BytesIO()
    for message in messages:
        write_frame(stream, message)
    stream.seek(0)
    assert [read_frame(stream) for _ in messages] == messages
    with pytest.raises(EOFError):
        read_frame(stream)


def test_a_message_cut_short_is_the_end():
    whole = frame(b"some values")
    for length in range(len(whole)):
        with pytest.raises(EOFError):
            read_frame(io.BytesIO(whole[:length]))


def test_what_somebody_else_wrote_is_no_message():
    whole = frame(b"some values")
    with pytest.raises(CorruptError):
        read_frame(io.BytesIO(b"hello, world: this is printed"))
    with pytest.raises(CorruptError):
        read_frame(io.BytesIO(whole[:-1] + b"!"))
    with pytest.raises(CorruptError):
        read_frame(io.BytesIO(whole[:8] + b"\xff" * 8 + whole[16:]))
    assert HEADER.size == len(frame(b""))
