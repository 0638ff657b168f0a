"""Isolation layers around one untrusted program, a function each: limits, Landlock, seccomp, namespaces, lower uid.

Standard library and ctypes only: no package wraps Landlock, and this runs in a bare interpreter. The seccomp filter
itself is built by pyseccomp in the parent (see `syscalls`) and arrives here as bytes.

Not covered: kernels other than Linux, where every function but the limits reports that it did nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import struct
from collections.abc import Iterable, Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
_READ_FILE, _WRITE_FILE, _READ_DIR = 1 << 2, 1 << 1, 1 << 3
_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
NAMESPACES = {"net": _NEWNET, "pid": _NEWPID, "ipc": _NEWIPC, "mount": _NEWNS, "uts": _NEWUTS}
NOBODY = 65534


def _call(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 without Landlock."""
    return max(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)), 0)


def landlock_ruleset(readable: Iterable[str]) -> int:
    """A rule set that allows reading beneath `readable`, /dev/null and /dev/urandom, and no more; a descriptor.

    Every right the kernel knows is handled, so also TCP (ABI 4), signals and abstract sockets outwards (ABI 6).

    Raises:
        OSError: no Landlock.
    """
    abi = landlock_abi()
    if not abi:
        raise OSError(errno.ENOSYS, "no Landlock")
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _call(
        _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)), "landlock"
    )
    os.set_inheritable(ruleset, False)
    for path in (*readable, "/dev/null", "/dev/urandom", "/dev/random"):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this machine
        rights = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE
        rights |= _WRITE_FILE if path == "/dev/null" else 0
        rule = struct.pack("=Qi", rights, fd)
        _call(_libc.syscall(_ADD_RULE, ruleset, 1, rule, ctypes.c_uint32(0)), f"landlock rule for {path}")
        os.close(fd)
    return ruleset


def landlock_enter(ruleset: int) -> None:
    """Puts this process under the rule set for good; needs `no_new_privileges` first."""
    _call(_libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)), "landlock_restrict_self")


def no_new_privileges() -> None:
    """No exec may raise privileges from here on."""
    _call(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def forbid_tracing() -> None:
    """No process of the same user may trace this one."""
    _call(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


def die_with_parent() -> None:
    """SIGKILL when the parent ends; the parent must have a single thread. Set after the last change of uid."""
    _call(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "pdeathsig")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def seccomp_enter(bpf: bytes) -> None:
    """Loads a compiled filter; needs `no_new_privileges` first."""
    program = _Program(len(bpf) // 8, bpf)
    _call(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0), "seccomp")


def drop_uid() -> int | None:
    """Gives up root for good, for a user id that nobody else has, else for `NOBODY`; None when this is not root.

    The kernel counts threads by user id: with an id of its own, one server's programs cannot use up another's.
    """
    if os.geteuid() != 0:
        return None
    os.setgroups([])
    own = 2**30 + int.from_bytes(os.urandom(3))
    try:
        os.setresgid(own, own, own)
        os.setresuid(own, own, own)
        return own
    except OSError:  # a container that maps fewer ids
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return NOBODY


def drop_capabilities() -> None:
    """Empties every capability set (an ordinary user holds all of them inside a new user namespace)."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    header = struct.pack("=Ii", 0x20080522, 0)
    _call(_libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)), "capset")


def unshare_namespaces(names: Sequence[str]) -> list[str]:
    """Leaves the named namespaces, behind a user namespace unless root; returns those left, [] when not allowed."""
    if not hasattr(_libc, "unshare"):
        return []
    flags = sum(NAMESPACES[name] for name in names)
    uid, gid, root = os.geteuid(), os.getegid(), os.geteuid() == 0
    if _libc.unshare(flags if root else flags | _NEWUSER) == 0:
        got = [*names] if root else ["user", *names]
    elif root and _libc.unshare(flags | _NEWUSER) == 0:
        got = ["user", *names]
    else:
        return []
    if "user" in got:
        for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(content)
    if "mount" in names:
        _libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
    return got


def cover_folder(folder: str, kept: Iterable[str]) -> None:
    """Mounts an empty file system over a folder in which only the `kept` paths are there again, read as before.

    Raises:
        OSError: not allowed; the folder is then as it was.
    """
    held = [(path, os.open(path, os.O_PATH)) for path in sorted(set(kept)) if os.path.isdir(path)]
    try:
        _call(_libc.mount(b"none", folder.encode(), b"tmpfs", 0x2 | 0x4 | 0x8, b"mode=755"), f"mount over {folder}")
        try:
            for path, fd in held:
                os.makedirs(path, mode=0o755, exist_ok=True)
                _call(_libc.mount(f"/proc/self/fd/{fd}".encode(), path.encode(), None, 0x1000 | 0x4000, None), path)
        except OSError:
            _libc.umount2(folder.encode(), 2)  # MNT_DETACH
            raise
    finally:
        for _, fd in held:
            os.close(fd)


def reveal_paths(paths: Iterable[str]) -> None:
    """Makes directories under a private folder (such as /root) reachable by others at their own paths.

    For root in an own mount namespace: a Python that lives in root's home must stay readable after the change of uid.
    The private folder is covered by an empty one in which only the named paths are mounted again, read as before.
    """
    private: dict[str, list[str]] = {}
    for path in paths:
        parts = os.path.realpath(path).split("/")
        for i in range(2, len(parts) + 1):
            parent = "/".join(parts[:i])
            if os.path.isdir(parent) and not os.stat(parent).st_mode & 0o001:
                private.setdefault(parent, []).append(os.path.realpath(path))
                break
    for folder, inside in private.items():
        cover_folder(folder, inside)


def set_limits(memory: int, cpu: float, processes: int = 256, file_size: int = 0, files: int = 64) -> None:
    """Sets the resource limits of one program.

    Args:
        memory: Bytes of address space.
        cpu: Seconds of processor time.
        processes: Most processes of the user.
        file_size: Bytes of a file; 0 forbids to write any.
        files: Most open files.
    """
    wanted = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: int(cpu) + 1,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: processes,
    }
    for kind, value in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some; the layer probe tells
            _, hard = resource.getrlimit(kind)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))


def close_all_but(keep: Iterable[int]) -> None:
    """Closes every file descriptor above 2 that is not named."""
    low = 3
    for fd in sorted(set(keep)):
        if fd >= low:
            os.closerange(low, fd)
            low = fd + 1
    os.closerange(low, 4096)
