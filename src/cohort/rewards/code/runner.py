"""The first process inside a sandbox: it starts a program's process for each request, and tells what became of it.

It is sent into the sandbox as text, behind wire.py. It knows no expected output, and what it tells is believed no further than
as the program's own words: whoever subverts it can only say what the program says.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import marshal
import os
import resource
import signal
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cohort.rewards.code.session import converse
    from cohort.rewards.code.wire import encode

# Bytes of the end of standard error that are told.
TAIL = 2000


def _receive(fd: int) -> Any:
    head = _read(fd, 4)
    return marshal.loads(_read(fd, int.from_bytes(head, "big"))) if head else None


def _read(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _send(fd: int, *fields: bytes) -> None:
    data = memoryview(b"".join(len(each).to_bytes(4, "big") + each for each in fields))
    while data:
        data = data[os.write(fd, data) :]


def _content(fd: int, size: int, *, end: bool = False) -> bytes:
    length = os.fstat(fd).st_size
    return os.pread(fd, size, max(0, length - size) if end else 0)


def serve() -> dict[str, Any]:
    """Answer requests; returns, with one of them, in the child that runs a program for it."""
    requests, replies = os.dup(0), os.dup(1)
    files = [os.open("/tmp", os.O_TMPFILE | os.O_RDWR) for _ in range(4)]
    os.dup2(files[0], 0)
    os.dup2(files[1], 1)
    # As the first process of its namespace it cannot be ended by others in it, whatever signal they send.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    untouched = os.stat("/tmp").st_ctime_ns
    while True:
        request = _receive(requests)
        if request is None:
            os._exit(0)
        if "pipes" in request:
            import socket

            with socket.socket(fileno=os.dup(requests)) as stream:
                request["pipes"] = list(socket.recv_fds(stream, 1, request["pipes"])[1])
        given, out, err, results = files
        for file in files:
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
        os.write(given, request.get("input", b""))
        os.lseek(given, 0, os.SEEK_SET)
        pid = os.fork()
        if not pid:
            os.dup2(given, 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            kept = sorted({*request.get("pipes", ()), results})
            for low, high in zip([2, *kept], [*kept, 1024], strict=True):
                os.closerange(low + 1, high)
            request["results"] = results
            return dict(request)
        for pipe in request.get("pipes", ()):
            os.close(pipe)
        status = _wait(pid, request)
        said = _content(err, TAIL, end=True)
        if status == b"ended" and b"MemoryError" in said[-400:]:
            status = b"memory"
        if os.fstat(out).st_size >= request["output"] or os.fstat(results).st_size >= request["output"]:
            status = b"output"
        # What a program leaves in its folder is there for the next one: the sandbox is told to be used up.
        used = b"" if os.stat("/tmp").st_ctime_ns == untouched else b"used"
        _send(replies, status, used, _content(out, request["output"]), said, _content(results, request["output"]))


def _wait(pid: int, request: dict[str, Any]) -> bytes:
    """What became of a child: done, ended (by an error), or time."""
    until = time.monotonic() + request["seconds"]
    ended, status = 0, 0
    while not ended:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        left = until - time.monotonic()
        if ended or left <= 0:
            break
        signal.sigtimedwait([signal.SIGCHLD], left)
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    if not ended:
        os.wait4(pid, 0)
        return b"time"
    with contextlib.suppress(OSError):
        while os.waitpid(-1, 0)[0]:
            pass
    if os.WIFSIGNALED(status):
        assert used is not None
        late = os.WTERMSIG(status) == signal.SIGXCPU or used.ru_utime + used.ru_stime >= 0.9 * request["cpu"]
        return b"time" if late else b"ended"
    return b"done" if status == 0 else b"ended"


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


_PRCTL = ctypes.CDLL(None).prctl


def confine(request: dict[str, Any]) -> None:
    """Limits of this process, which it can lower only."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What the module site would have defined.
    for name in ("exit", "quit"):
        setattr(builtins, name, sys.exit)
    for what, most in (
        (resource.RLIMIT_AS, request["memory"]),
        (resource.RLIMIT_CPU, request["cpu"]),
        (resource.RLIMIT_FSIZE, request["output"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    code = request["filter"]
    filter_ = _Filter(len(code) // 8, code)
    # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    if _PRCTL(22, 2, ctypes.byref(filter_), 0, 0):
        os._exit(111)


def _found(module: ModuleType, entry: str) -> Any:
    """A function by its name, as a method of an instance made for it where it is one of a class."""
    first, *rest = entry.replace("()", "").split(".")
    if not hasattr(module, first) and not rest and hasattr(module, "Solution"):
        first, rest = "Solution", [entry]
    found = getattr(module, first)
    for name in rest:
        found = getattr(found() if isinstance(found, type) else found, name)
    return found


def told(module: ModuleType, call: tuple[str, Any, Any]) -> str:
    """What a function returned, or that it raised."""
    entry, arguments, named = call
    try:
        return "v" + encode(_found(module, entry)(*arguments, **named))
    except BaseException as error:
        return "e" + encode(f"{type(error).__name__}: {error}"[:300])


def printed(source: str, calls: bytes, mark: str) -> None:
    """Run a program in this process, and print what its functions return, each behind a mark."""
    module = sys.modules["program"] = ModuleType("program")
    exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
    for call in marshal.loads(calls):
        print(f"\n{mark}{told(module, call)}", flush=True)


def run(request: dict[str, Any]) -> None:
    """Run a program in this process as a request asks."""
    name = "__main__" if request["do"] == "stdin" else "program"
    module = ModuleType(name)
    sys.modules[name] = module
    sys.argv = ["program.py"]
    try:
        exec(compile(request["source"], "program.py", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as end:
        if "atexit" in request["source"]:
            raise
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
            end.code = 1
        _leave(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        _leave(1)
    if request["do"] == "cases":
        for call in request["cases"]:
            os.write(request["results"], told(module, call).encode() + b"\n")
        os._exit(0)
    if "atexit" not in request["source"]:
        _leave(0)


def _leave(status: int) -> None:
    """End this process without taking the interpreter down piece by piece, which would copy most of its memory."""
    threading = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            status = status or 1
    os._exit(status & 255)


if __name__ == "__main__":
    _job = serve()
    confine(_job)
    if _job["do"] == "session":
        converse(_job)
    else:
        run(_job)
