"""A program's sandbox: bubblewrap with namespaces, a filter of system calls, and limits."""

from __future__ import annotations

import contextlib
import marshal
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.code.seccomp import filters

MIB = 1 << 20
# The interpreter inside, where it is not the one that runs cohort: one with further packages, as numpy.
PYTHON = "COHORT_CODE_PYTHON"
OPTIONS = ("-s", "-P", "-B", "-X", "utf8")
# Bytes of the file system inside that can be written to.
FILES = 64 * MIB
INSTALL = (
    "the reward 'code' runs programs in a sandbox, and there is none here: {why}. Install bubblewrap (Debian, Ubuntu: "
    "apt-get install bubblewrap libseccomp2; Fedora: dnf install bubblewrap libseccomp), or name a server of SandboxFusion "
    "as code:@http://host:port or code:partial@http://host:port. Programs are never run without a sandbox"
)


@dataclass(frozen=True)
class Limits:
    """What one run of a program may take.

    Attributes:
        seconds: of wall time.
        cpu: seconds of the processor's time.
        memory: bytes of address space.
        output: bytes that it may write, into any one file or to standard output.
    """

    seconds: float = 10.0
    cpu: int = 4
    memory: int = 1024 * MIB
    output: int = 8 * MIB


@dataclass(frozen=True)
class Ran:
    """What became of a run.

    Attributes:
        status: "done"; "ended" (an error, or a signal), "time", "memory" or "output" (a limit), "lost" (the sandbox itself
            was ended).
        out, err: standard output, and the end of standard error.
        results: what was told of each case, one line each.
    """

    status: str
    out: bytes = b""
    err: bytes = b""
    results: bytes = b""

    @property
    def error(self) -> str:
        """The last line of standard error."""
        lines = self.err.decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


class Lost(Exception):
    """The sandbox ended, or did not answer in time."""


class Sandbox:
    """One sandbox. It serves one program after the other: each run is a process of its own, forked from one that has run no
    program, and all that it made is gone before the next.

    Args:
        part: "program", or "asserts" for what judges one from another sandbox.
        python: the interpreter inside, of an environment with packages; by default the one of PYTHON, or that which runs
            cohort, without packages.
        first: code of ours that it runs before any program, so that each begins with what is imported there.

    Attributes:
        used: it serves no other program, since this one left files in it, or ended it.
    """

    used = False

    def __init__(self, part: str = "program", *, python: str | None = None, first: str = "") -> None:
        whole, self._sealed = filters()
        self._asking, asked = socket.socketpair()
        reading, writing = os.pipe()
        try:
            os.write(writing, whole)
            os.close(writing)
            self._process = subprocess.Popen(
                [*_command(python), "--add-seccomp-fd", str(reading), "--", *_python(python), "-c", _text(part, first)],
                stdin=asked.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[reading],
                bufsize=0,
                env={},
                process_group=0,
            )
        finally:
            os.close(reading)
            asked.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], limits: Limits, pipes: Sequence[int] = ()) -> None:
        """Have something run, with descriptors that are handed in."""
        data = marshal.dumps(
            {
                **request,
                **({"pipes": len(pipes)} if pipes else {}),
                "seconds": limits.seconds,
                "cpu": limits.cpu,
                "memory": limits.memory,
                "output": limits.output,
                "filter": self._sealed,
            },
            2,
        )
        try:
            self._asking.settimeout(START)
            self._asking.sendall(len(data).to_bytes(4, "big") + data)
            if pipes:
                socket.send_fds(self._asking, [b"+"], list(pipes))
        except OSError as error:
            raise Lost from error

    def answer(self, limits: Limits, grace: float = 5.0) -> Ran:
        """What became of what was asked for."""
        try:
            until = time.monotonic() + limits.seconds + grace
            status, used, *fields = [self._field(limits.output + 4096, until) for _ in range(5)]
        except Lost:
            self.used = True
            return Ran("lost", err=self.said())
        self.used |= bool(used)
        named = status.decode(errors="replace")
        return Ran(named if named in ("done", "ended", "time", "memory", "output") else "lost", *fields)

    def begin(self, request: dict[str, Any], limits: Limits, pipes: Sequence[int] = ()) -> bool:
        """Ask; False if the sandbox has ended."""
        try:
            self.ask(request, limits, pipes)
        except Lost:
            self.used = True
        return not self.used

    def run(self, request: dict[str, Any], limits: Limits) -> Ran:
        """Ask, and wait for the answer."""
        return self.answer(limits) if self.begin(request, limits) else Ran("lost", err=self.said())

    def said(self) -> bytes:
        """What the sandbox itself said of its end."""
        stream = self._process.stderr
        if stream is None or stream.closed:
            return b""
        return os.read(stream.fileno(), 4096) if select.select([stream], [], [], 0)[0] else b""

    def close(self) -> None:
        """End all that is in it."""
        # The whole group: killed by itself while it starts, bwrap would leave a child that waits for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._asking.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _field(self, most: int, until: float) -> bytes:
        size = int.from_bytes(self._read(4, until), "big")
        if size > most:
            raise Lost
        return self._read(size, until)

    def _read(self, size: int, until: float) -> bytes:
        stream, got = self._process.stdout, bytearray()
        if stream is None or stream.closed:
            raise Lost
        while len(got) < size:
            if not select.select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
                raise Lost
            piece = os.read(stream.fileno(), min(size - len(got), MIB))
            if not piece:
                raise Lost
            got += piece
        return bytes(got)


# Seconds that a sandbox may take to start, on a machine that is busy.
START = 20.0


@cache
def _text(part: str, first: str) -> str:
    """The program of the first process inside."""
    text = inside("wire", "talk", "session" if part == "program" else "asserts", "runner")
    return text.replace("\n", f"\n{first}\n", 1)


def inside(*names: str) -> str:
    """Modules of this folder as one text that needs no other, for an interpreter that is far from them."""
    texts = [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in names]
    here = re.compile(r"^from (?:__future__|typing) import .*\n|^if TYPE_CHECKING:\n(?:    .*\n)+", re.MULTILINE)
    return "\n".join(["from __future__ import annotations", *(here.sub("", text) for text in texts)])


@cache
def _interpreter(python: str | None = None) -> tuple[str, str, str]:
    """Path of the interpreter inside, of its installation, and of the environment with its packages ("" where none)."""
    chosen = python or os.environ.get(PYTHON)
    if not chosen:
        own = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        return os.path.realpath(own if os.path.exists(own) else sys.executable), sys.base_prefix, ""
    try:
        told = subprocess.run(
            [
                chosen,
                "-I",
                "-c",
                "import os, sys; print(os.path.realpath(sys.executable), sys.base_prefix, sys.prefix, sep='\\n')",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        name = chosen if python else f"{PYTHON}={chosen}"
        raise UsageError(f"{name}: it does not run as a Python interpreter: {error}") from error
    return told[0], told[1], told[2]


def _python(python: str | None) -> list[str]:
    path, prefix, environment = _interpreter(python)
    if not environment:
        return [path, "-S", *OPTIONS]
    return [path if environment == prefix else f"{environment}/bin/python", *OPTIONS]


@cache
def _command(python: str | None = None) -> tuple[str, ...]:
    """bubblewrap with all that does not change from program to program."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise UsageError(INSTALL.format(why="there is no bwrap on the path"))
    path, prefix, environment = _interpreter(python)
    shown = dict.fromkeys([path, f"{prefix}/lib", f"{prefix}/lib64"])
    mounts: list[str] = []
    if environment and environment != prefix:
        # It finds its packages by where it stands; a link would lead to what is not inside.
        shown |= dict.fromkeys([f"{environment}/lib", f"{environment}/pyvenv.cfg"])
        mounts += ["--ro-bind", path, f"{environment}/bin/python"]
    for folder in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"):
        if os.path.islink(folder):
            mounts += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            mounts += ["--ro-bind", folder, folder]
    for each in shown:
        within = each.startswith(("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")) or each in mounts
        if os.path.exists(each) and not os.path.islink(each) and not within:
            mounts += ["--ro-bind", each, each]
    if os.path.exists("/etc/ld.so.cache"):
        mounts += ["--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    # An interpreter that stands in /tmp has folders there, in which no program may leave anything either.
    own = dict.fromkeys("/".join(each.split("/")[:3]) for each in mounts if each.startswith("/tmp/"))
    return (
        bwrap,
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--clearenv", "--setenv", "PYTHONHASHSEED", "0"),
        *("--size", str(FILES), "--tmpfs", "/tmp"),
        *(word for folder in own for word in ("--tmpfs", folder)),
        *mounts,
        *(word for folder in own for word in ("--remount-ro", folder)),
        # No device of the machine's: who owns it, as root does, could change its permissions for everyone.
        *("--symlink", "/tmp/null", "/dev/null"),
        *("--chdir", "/tmp", "--remount-ro", "/"),
    )


@cache
def check() -> None:
    """A sandbox can be had.

    Raises:
        UsageError: it cannot; says why, and what to do.
    """
    _command()
    with Sandbox() as sandbox:
        ran = sandbox.run({"do": "stdin", "source": "print(6 * 7)", "input": b""}, Limits())
    if (ran.status, ran.out) != ("done", b"42\n"):
        said = ran.err.decode(errors="replace").strip().splitlines()
        why = f"bwrap does not run Python here ({said[-1] if said else ran.status})"
        if "uid map" in why or "user namespace" in why or "Permission denied" in why or "not permitted" in why:
            why += (
                "; user namespaces may be switched off (sysctl kernel.unprivileged_userns_clone=1, "
                "kernel.apparmor_restrict_unprivileged_userns=0), or not allowed in this container"
            )
        raise UsageError(INSTALL.format(why=why))
