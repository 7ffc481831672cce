"""Messages between a parent and its own child: their length, a check of their bytes, and the bytes."""

from __future__ import annotations

import struct
import zlib
from typing import IO

MARK = b"cohort\x01\x00"
HEADER = struct.Struct(">8sQI")
# More than any message has; a length beyond it was written by somebody else.
LONGEST = 1 << 40


class CorruptError(ValueError):
    """What was read is no message."""


def frame(data: bytes) -> bytes:
    """A message that holds the bytes."""
    return HEADER.pack(MARK, len(data), zlib.crc32(data)) + data


def length(head: bytes) -> int:
    """Bytes after the header of a message.

    Raises:
        CorruptError: this is no header.
    """
    mark, size, _ = HEADER.unpack(head)
    if mark != MARK or size > LONGEST:
        raise CorruptError("what came is no reply")
    return int(size)


def content(head: bytes, data: bytes) -> bytes:
    """The bytes of a message.

    Raises:
        CorruptError: they are not what was sent.
    """
    if zlib.crc32(data) != HEADER.unpack(head)[2]:
        raise CorruptError("what came is not what was sent")
    return data


def read_frame(stream: IO[bytes]) -> bytes:
    """Receive one message.

    Raises:
        EOFError: the other side is gone.
        CorruptError: what came is no message.
    """
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        raise EOFError
    size = length(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return content(head, data)


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Send one message."""
    stream.write(frame(data))
    stream.flush()
