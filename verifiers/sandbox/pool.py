"""Runs untrusted programs against trusted tests in as many isolation layers as this machine allows; records which.

The parent's side: it starts the fork servers, inside bubblewrap where that works, reads back which layers
stood up to a probe, refuses to run below the floor, and keeps the pool.

The floor is Landlock and seccomp together, or bubblewrap. All of it is defence in depth on a shared kernel: for
programs from an actively hostile author use a virtual machine.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from verifiers.sandbox import syscalls
from verifiers.workers import Worker, WorkerDied, WorkerPool, WorkerTimeout, child_command, shared_object, usable_cores

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # else every thread of a program takes 64 MB of its address space
}
"""All a program can see of the environment: no token of the user's is in it."""

CHOICES = """\
Untrusted programs are not run: this machine offers only {level}.
The floor is Landlock and seccomp (Linux 5.13 or newer with Landlock enabled, and libseccomp), or bubblewrap.
Choices:
  - on Debian or Ubuntu: apt-get install libseccomp2 bubblewrap
  - on a kernel without Landlock, or where Docker blocks namespaces: run in a container or virtual machine of your own
    that allows one of the two
  - on macOS or Windows: run inside a Linux virtual machine or container
  - if this whole machine may be lost to the programs: pass --unsafe-exec (unsafe_exec=True in code){why}"""


class UnsafeMachine(RuntimeError):
    """The isolation reached here is below the floor."""


@dataclass(frozen=True)
class Isolation:
    """The isolation layers that work on this machine, for run records.

    Attributes:
        layers: Names in the order they go up, such as uid, landlock7, seccomp.
        safe: Whether the floor is reached.
        notes: Why a wall is missing.
    """

    layers: tuple[str, ...]
    safe: bool
    notes: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """One line for tables: `bwrap+uid+rlimits+landlock7+seccomp`, or `none`."""
        return "+".join(self.layers) or "none"

    @property
    def warning(self) -> str:
        """One line for people when programs run below the floor, '' above it."""
        why = f" ({'; '.join(self.notes)})" if self.notes else ""
        return "" if self.safe else f"warning: untrusted programs run without a sound sandbox: {self.level}{why}"


@dataclass(frozen=True)
class Job:
    """One program and its tests.

    Attributes:
        text: The response holding the program.
        tests: Trusted test sources, run in order.
        prompt: Code the program may continue, '' for none.
        setup: Trusted code the tests need first.
        entry_point: The function under test, '' when the tests name it themselves.
        wanted: Names the program should define.
        free: Names the tests read that they do not bind themselves.
        calls_check: Whether the tests call `check` themselves.
        believes_methods: Whether the tests take the word of a method of an object that the program returned.
        seed: Of the tests' random inputs; the program's side never has it.
        mode: `split` or `compat`.
        limit: Wall seconds.
        memory: Bytes of address space.
    """

    text: str
    tests: tuple[str, ...]
    prompt: str = ""
    setup: str = ""
    entry_point: str = ""
    wanted: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    calls_check: bool = False
    believes_methods: bool = False
    seed: int = 0
    mode: Literal["split", "compat"] = "split"
    limit: float = 10.0
    memory: int = 2**30

    def request_frames(self) -> list[bytes]:
        """The request: what the fork server may know, what the candidate's process may, what only the tests' may."""
        limits = {"mode": self.mode, "limit": self.limit, "memory": self.memory}
        shown = {"text": self.text, "prompt": self.prompt, "wanted": list(self.wanted)}
        hidden = {
            "tests": list(self.tests),
            "prompt": self.prompt,
            "setup": self.setup,
            "entry_point": self.entry_point,
            "wanted": list(self.wanted),
            "free": list(self.free),
            "calls_check": self.calls_check,
            "believes_methods": self.believes_methods,
            "seed": self.seed,
        }
        return [json.dumps(part).encode() for part in (limits, shown, hidden)]


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        status: ok (graded), no_answer (no program found), timeout, error (the sandbox failed).
        mode: How it was graded; `compat` results can be forged by the program.
        needs_compat: The tests hand over what cannot cross between two processes.
    """

    passed: bool
    status: Literal["ok", "no_answer", "timeout", "error"]
    reason: str = ""
    program: str | None = None
    mode: str = "split"
    needs_compat: bool = False


def readable_paths() -> list[str]:
    """What a program may read: Python's own library, installed packages, system libraries, time zones."""
    paths = sysconfig.get_paths()
    libraries = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    base = Path(sys.base_prefix)
    libraries += [
        str(base / "lib"),
        sysconfig.get_config_var("DESTSHARED") or "",
        sysconfig.get_config_var("LIBDIR") or "",
    ]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    return sorted({path for path in [*libraries, *system] if path and os.path.exists(path)})


def _configuration(bwrap: bool, filter_: bytes | None, unsafe: bool) -> str:
    stdlib = [path for path in sys.path if path and ("python3" in path or path.endswith(".zip"))]
    library = sysconfig.get_paths()
    paths = [library["stdlib"], library["platstdlib"], sysconfig.get_config_var("DESTSHARED") or ""]
    paths += [path for path in stdlib if path not in paths]
    return json.dumps(
        {
            "bwrap": bwrap,
            "unsafe": unsafe,
            "filter": base64.b64encode(filter_).decode() if filter_ else "",
            "read": readable_paths(),
            "paths": [path for path in dict.fromkeys(paths) if path],
        }
    )


def _bubblewrap() -> list[str]:
    """The outer layer's command line: only libraries, Python and this package are there at all."""
    argv = [str(shutil.which("bwrap")), "--new-session", "--unshare-net", "--unshare-pid", "--unshare-ipc"]
    argv += ["--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    if os.geteuid() == 0:  # to leave root behind once Python is loaded
        argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        argv += ["--unshare-user"]
    argv += ["--dev", "/dev", "--tmpfs", "/tmp"]  # before the rest: a path under /tmp must stay visible
    here = Path(__file__).resolve().parent.parent  # the whole package
    places = [*readable_paths(), str(here), sys.prefix, os.path.dirname(os.path.realpath(sys.executable))]
    places += [os.path.dirname(sys.executable)]
    for path in dict.fromkeys(places):
        for parent in reversed(Path(path).parents):
            argv += ["--perms", "0755", "--dir", str(parent)]  # passable for the lower uid, whatever they are outside
        argv += ["--ro-bind-try", path, path]
    return [*argv, "--chdir", "/", "--"]


class Sandbox:
    """A pool of fork servers.

    Args:
        workers: Programs run at a time; default: every core.
        unsafe: Run even below the floor.
        bubblewrap: Use it as the outer wall where it works.
        seccomp: Only tests turn this off, to see the refusal.
    """

    def __init__(self, workers: int | None = None, unsafe: bool = False, bubblewrap: bool = True, seccomp: bool = True):
        self.unsafe, self._isolation, self._warned = unsafe, None, False
        self._bubblewrap = bubblewrap and shutil.which("bwrap") is not None
        self._notes: list[str] = [] if self._bubblewrap else ["bubblewrap is not used"]
        self._filter: bytes | None = None
        if seccomp:
            try:
                self._filter = syscalls.compile_filter()
            except syscalls.NoSeccomp as error:
                self._notes.append(str(error))
        self.pool = WorkerPool(self._argv, ENVIRONMENT, workers or usable_cores())

    def _argv(self) -> list[str]:
        config = _configuration(self._bubblewrap, self._filter, self.unsafe)
        return [*(_bubblewrap() if self._bubblewrap else []), *child_command("sandbox.fork_server", config)]

    @property
    def isolation(self) -> Isolation:
        """The isolation layers that work, from a probe run once.

        Raises:
            WorkerDied: not even a bare fork server starts.
        """
        if self._isolation is None:
            try:
                hello = self._first_hello()
            except WorkerDied as error:
                if not self._bubblewrap:
                    raise
                self._bubblewrap = False  # present but not allowed here (Docker, AppArmor)
                self._notes.append(f"bubblewrap does not start here: {error}")
                hello = self._first_hello()
            names = tuple(hello["layers"])
            safe = "bwrap" in names or ("seccomp" in names and any(name.startswith("landlock") for name in names))
            self._isolation = Isolation(names, safe, (*self._notes, *hello["notes"]))
        return self._isolation

    def _first_hello(self) -> dict[str, Any]:
        with self.pool.hold_worker() as worker:
            return json.loads(worker.hello)

    def require_isolation(self) -> Isolation:
        """The isolation, when it is good enough to run anything; below the floor with `unsafe`, said once on stderr.

        Raises:
            UnsafeMachine: below the floor without `unsafe`; the text lists the choices.
        """
        if not sys.platform.startswith("linux") and not self.unsafe:
            raise UnsafeMachine(CHOICES.format(level=f"no sandbox ({sys.platform})", why=""))
        isolation = self.isolation
        if not isolation.safe and not self.unsafe:
            why = "".join(f"\nNote: {note}" for note in isolation.notes)
            raise UnsafeMachine(CHOICES.format(level=isolation.level, why=why))
        if isolation.warning and not self._warned:
            self._warned = True
            print(isolation.warning, file=sys.stderr)
        return isolation

    def run_job(self, job: Job) -> Outcome:
        """Runs one job; whatever happens inside, the answer comes within its limit and a little."""
        self.require_isolation()
        try:
            with self.pool.hold_worker() as worker:
                answer = json.loads(self._ask(worker, job))
        except WorkerTimeout:
            return Outcome(False, "timeout", "the sandbox did not answer", mode=job.mode)
        except WorkerDied as error:
            return Outcome(False, "error", f"the sandbox ended: {error}", mode=job.mode)
        status = "error" if answer["status"] == "lost" else answer["status"]
        return Outcome(
            bool(answer["passed"]) and status == "ok",
            status,
            answer["reason"],
            answer["program"],
            job.mode,
            bool(answer.get("needs_compat")),
        )

    def _ask(self, worker: Worker, job: Job) -> bytes:
        return worker.ask(job.request_frames(), job.limit + 10)

    def close(self) -> None:
        """Ends the fork servers."""
        self.pool.close()


def shared_sandbox(workers: int | None = None, unsafe: bool = False) -> Sandbox:
    """The one sandbox of this process with these settings: training and evaluation share its bound."""
    return shared_object(("sandbox", workers or usable_cores(), unsafe), lambda: Sandbox(workers, unsafe))
