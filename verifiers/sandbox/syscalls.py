"""The allowlist of system calls for untrusted programs, compiled to a seccomp filter by pyseccomp.

What is not named fails with EPERM: exec, fork, sockets, signals, tracing, mounts, keys, namespaces, BPF and every call
a future kernel adds. Threads are allowed (they die with the process); `clone3` reports ENOSYS so that the C library
falls back to `clone`, whose flags a filter can see.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import contextlib
import errno
import os
import tempfile

_THREAD = 0x00010000  # CLONE_THREAD

ALLOWED = (
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek _llseek "
    "open openat openat2 stat fstat lstat newfstatat fstatat64 stat64 fstat64 lstat64 statx statfs fstatfs access "
    "faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir dup dup2 dup3 fcntl fcntl64 "
    "flock pipe pipe2 poll ppoll select pselect6 _newselect epoll_create epoll_create1 epoll_ctl epoll_wait "
    "epoll_pwait epoll_pwait2 eventfd eventfd2 mmap mmap2 mprotect munmap mremap brk madvise mincore mlock munlock "
    "msync membarrier rt_sigaction rt_sigprocmask rt_sigreturn sigreturn rt_sigpending rt_sigsuspend sigaltstack "
    "rt_sigtimedwait getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid "
    "getpgrp getsid getrlimit ugetrlimit setrlimit getrusage times sysinfo uname umask futex futex_time64 "
    "futex_waitv set_robust_list get_robust_list set_tid_address rseq sched_yield sched_getaffinity "
    "sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu nanosleep "
    "clock_nanosleep clock_nanosleep_time64 clock_gettime clock_gettime64 clock_getres clock_getres_time64 "
    "gettimeofday time getitimer setitimer alarm pause timer_create timer_settime timer_gettime timer_delete "
    "timer_getoverrun timerfd_create timerfd_settime timerfd_gettime getrandom memfd_create ftruncate fsync "
    "fdatasync fadvise64 exit exit_group restart_syscall arch_prctl set_thread_area get_thread_area "
    "wait4 waitid waitpid copy_file_range sendfile splice tee recvfrom getsockname getsockopt shutdown"
).split()
"""Calls that touch only the process itself, or files, which Landlock guards."""

_ASSEMBLED: dict[str, bytes] = {}


class NoSeccomp(RuntimeError):
    """The filter cannot be built here; the text gives the reason."""


def compile_filter() -> bytes:
    """The filter as BPF instructions for this machine.

    Raises:
        NoSeccomp: pyseccomp or the libseccomp library is missing.
    """
    if "filter" not in _ASSEMBLED:
        _ASSEMBLED["filter"] = _compile()
    return _ASSEMBLED["filter"]


def _compile() -> bytes:
    try:
        import pyseccomp
    except ImportError as error:
        raise NoSeccomp(f"pyseccomp is not installed ({error})") from None
    except (RuntimeError, OSError) as error:
        raise NoSeccomp(f"libseccomp cannot be loaded ({error}); install the package libseccomp2") from None
    program = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    with contextlib.suppress(OSError, ValueError, AttributeError):  # libseccomp before 2.5: the same filter, slower
        program.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a tree, which the kernel loads faster than a chain
    for name in ALLOWED:
        _allow(pyseccomp, program, name)
    _allow(pyseccomp, program, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _THREAD, _THREAD))
    _allow(pyseccomp, program, "prlimit64", pyseccomp.Arg(0, pyseccomp.EQ, 0))
    _allow(pyseccomp, program, "socketpair", *_pair(pyseccomp))  # asyncio wakes itself by one; it reaches nobody else
    _allow(pyseccomp, program, "sendto", pyseccomp.Arg(4, pyseccomp.EQ, 0))  # no address: to the other end only
    for request in (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451):  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIO(N)CLEX
        _allow(pyseccomp, program, "ioctl", pyseccomp.Arg(1, pyseccomp.EQ, request))
    program.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return os.pread(file.fileno(), 2**20, 0)


def _pair(pyseccomp) -> list:
    """A pair of streams within this process; other kinds of socket could send to an address."""
    unix, stream, kind = 1, 1, 0xF
    return [pyseccomp.Arg(0, pyseccomp.EQ, unix), pyseccomp.Arg(1, pyseccomp.MASKED_EQ, kind, stream)]


def _allow(pyseccomp, program, name: str, *arguments) -> None:
    """Adds a rule; names another architecture has and this one lacks are passed over."""
    try:
        program.add_rule(pyseccomp.ALLOW, name, *arguments)
    except (OSError, ValueError):
        if name in ("read", "write", "exit_group", "clone"):
            raise
