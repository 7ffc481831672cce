"""Filters of system calls, made by libseccomp."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import tempfile
from functools import cache

from cohort.errors import UsageError

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NE, _MASKED_EQ = 1, 7
# What no program for a test needs, and what reaches kernel interfaces beyond files, memory and threads.
DENIED = """
    socket connect bind listen accept accept4
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_open pidfd_getfd
    mount umount2 pivot_root chroot unshare setns fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr statmount
    listmount swapon swapoff quotactl quotactl_fd name_to_handle_at open_by_handle_at fanotify_init fanotify_mark
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    io_setup io_submit io_destroy io_getevents io_pgetevents io_cancel
    add_key request_key keyctl init_module finit_module delete_module kexec_load kexec_file_load reboot
    iopl ioperm modify_ldt personality syslog acct vhangup lookup_dcookie
    settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname
    memfd_create memfd_secret shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl semtimedop
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages
    mknod mknodat seccomp setxattr lsetxattr fsetxattr splice tee vmsplice
"""
# Further, once the program's own process stands: it makes no others.
SEALED = """
    sendmsg recvmsg sendmmsg recvmmsg fork vfork execve execveat kill tkill rt_sigqueueinfo rt_tgsigqueueinfo
    setpriority ioprio_set sched_setaffinity sched_setscheduler sched_setparam sched_setattr sync syncfs
"""
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME; and CLONE_THREAD.
_NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80)
_THREAD = 0x10000


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@cache
def filters() -> tuple[bytes, bytes]:
    """BPF programs for the whole sandbox, and, further, for the process of a program. A call that is not allowed fails with
    EPERM; clone3, whose flags no filter can read, with ENOSYS, upon which the C library takes clone.

    Raises:
        UsageError: libseccomp is not there.
    """
    name = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise UsageError(
            "the sandbox of code rewards needs libseccomp, which is not on this machine: install it (Debian, Ubuntu: "
            "apt-get install libseccomp2), or name a server of SandboxFusion, as code:@http://host:port"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    return (
        _exported(library, DENIED, [("clone", _MASKED_EQ, flag, flag) for flag in _NEW]),
        # Limits of its own process only; a process beside it is the one that serves the next program.
        _exported(library, SEALED, [("clone", _MASKED_EQ, _THREAD, 0), ("prlimit64", _NE, 0, 0)]),
    )


def _exported(library: ctypes.CDLL, denied: str, marked: list[tuple[str, int, int, int]]) -> bytes:
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    refuse = ctypes.c_uint32(_ERRNO | errno.EPERM)
    try:
        for call in denied.split():
            number = library.seccomp_syscall_resolve_name(call.encode())
            if number != -1:  # not known to this libseccomp, as it is newer
                _made(library.seccomp_rule_add_array(context, refuse, number, 0, None), call)
        for call, how, first, second in marked:
            number = library.seccomp_syscall_resolve_name(call.encode())
            argument = _Comparison(0, how, first, second)
            _made(library.seccomp_rule_add_array(context, refuse, number, 1, ctypes.byref(argument)), call)
        unknown = ctypes.c_uint32(_ERRNO | errno.ENOSYS)
        clone3 = library.seccomp_syscall_resolve_name(b"clone3")
        # An old libseccomp does not know it, but it has had the number 435 on every architecture.
        _made(library.seccomp_rule_add_array(context, unknown, 435 if clone3 == -1 else clone3, 0, None), "clone3")
        with tempfile.TemporaryFile() as file:
            _made(library.seccomp_export_bpf(context, file.fileno()), "export")
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def _made(status: int, what: str) -> None:
    # A call of another architecture has a negative number there, which libseccomp leaves out by itself.
    if status < 0 and status != -errno.EDOM:
        raise OSError(-status, f"libseccomp refuses a rule ({what})")
