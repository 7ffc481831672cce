"""What a process prints: read as it comes, the end of it kept."""

from __future__ import annotations

import contextlib
import os
import select
import threading

# Bytes that are kept.
KEPT = 65536


class Printed:
    """The end of what processes print, one after the other.

    Nothing that they print waits to be read, and nothing is kept beyond the last KEPT bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = bytearray()
        self._count = self._taken = self._began = 0
        self._open: dict[int, threading.Thread] = {}

    def follow(self, fd: int) -> None:
        """Read what a process that starts now prints, until the end; takes over the descriptor."""
        os.set_blocking(fd, False)
        with self._lock:
            self._began = self._count
            self._open[fd] = thread = threading.Thread(target=self._read, args=(fd,), daemon=True, name="printed")
        thread.start()

    def _read(self, fd: int) -> None:
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        while True:
            ready.poll(1000)
            with self._lock:
                if self._open.get(fd) is not threading.current_thread() or not self._drain(fd):
                    break
        self._forget(fd, threading.current_thread())

    def _drain(self, fd: int) -> bool:
        """Read what there is; False at the end."""
        # A few pieces at a time, so that whoever prints without end does not hold the lock without end.
        for _ in range(64):
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._count += len(data)
            self._last += data
            del self._last[:-KEPT]
        return True

    def _forget(self, fd: int, thread: threading.Thread | None) -> None:
        with self._lock:
            if thread is not None and self._open.get(fd) is thread:
                del self._open[fd]
                with contextlib.suppress(OSError):
                    os.close(fd)

    def close(self) -> None:
        """Read what ended processes have left, and no further: children of theirs may still hold the other end."""
        for fd, thread in list(self._open.items()):
            thread.join(0.2)
            self._forget(fd, thread)

    def tail(self, most: int = 2000) -> str:
        """The end of what the last process printed."""
        with self._lock:
            for fd in list(self._open):
                self._drain(fd)
            own = min(self._count - self._began, most)
            return self._last[len(self._last) - min(own, len(self._last)) :].decode(errors="replace").strip()

    def take(self, most: int = 16384) -> str:
        """What was printed since the last call; of more than `most` bytes the end, with how many were left out."""
        with self._lock:
            for fd in list(self._open):
                self._drain(fd)
            new = self._count - self._taken
            kept = min(new, most, len(self._last))
            self._taken = self._count
            text = self._last[len(self._last) - kept :].decode(errors="replace")
        return f"[{new - kept} bytes before this are left out]\n{text}" if new > kept else text
