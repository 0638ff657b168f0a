"""No attack is graded as passed, none reaches outside, and nothing is left running; as root and as an ordinary user."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attacks
import pytest

from harness.core import Problem
from verifiers.code_tests import CodeTests

pytestmark = pytest.mark.slow  # attacks run into limits of time

REPO = Path(__file__).parents[2]
LIMIT = 1.5


def row(program: str, **fields) -> dict:
    return {"prompt": attacks.PROMPT, "entry_point": "double", "test": attacks.TEST, "program": program} | fields


def left_over(package: str) -> list[str]:
    """Command lines of processes that run this copy's sandbox and whose parent is gone (or that are no one's)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if package in line and ("fork_server" in line or "math_process" in line) and state[1] == "1":
                found.append(f"{entry.name}: {line[:200]}")
    return found


@pytest.fixture(scope="module")
def world():
    """What an attack could reach: a file, a listening port, a process, a secret."""
    folder = Path(tempfile.mkdtemp(prefix="verifiers-attacks-"))  # pytest's own folders are closed to other users
    os.chmod(folder, 0o777)
    marker = folder / "marker"
    marker.write_text("untouched")
    os.chmod(marker, 0o666)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {
        "marker": str(marker),
        "port": listener.getsockname()[1],
        "victim": victim.pid,
        "folder": folder,
        "listener": listener,
    }
    victim.kill()
    victim.wait()
    listener.close()
    shutil.rmtree(folder)


def programs(world) -> dict[str, str]:
    fields = {name: world[name] for name in ("marker", "port", "victim")}
    return attacks.FORGERS | {name: text.format(**fields) for name, text in attacks.BREAKERS.items()}


def audit(world, rows: list[dict], user: int | None, *options: str, limit: float = LIMIT) -> list[dict]:
    """The audit command in a process of its own, as root or as an ordinary user."""
    name = f"{time.monotonic_ns()}"
    source, out = world["folder"] / f"{name}.jsonl", world["folder"] / f"{name}.out"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    python = [sys.executable] if user is None else python_for(user) or []
    argv = [*python, "-m", "verifiers.check", str(source), "--verifier", "code", "--out", str(out)]
    done = subprocess.run(
        [*argv, "--time-limit", str(limit), *options],
        cwd=REPO,
        env=os.environ | {"API_TOKEN": "s3cret", "PYTHONDONTWRITEBYTECODE": "1"},
        user=user,
        group=user,
        extra_groups=[] if user is not None else None,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "isolation: " in done.stdout
    return [json.loads(line) for line in out.read_text().splitlines()]


def python_for(user: int) -> list[str] | None:
    """A Python the user can run: this one, or the system's with this one's packages."""
    packages = str(Path(importlib.util.find_spec("pyseccomp").origin).parent)  # pyright: ignore
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        probe = "import sys, pyseccomp, harness; assert sys.version_info >= (3, 11)"
        env = ["/usr/bin/env", f"PYTHONPATH={packages}"] if python != sys.executable else ["/usr/bin/env"]
        done = subprocess.run(
            [*env, str(python), "-c", probe], cwd=REPO, user=user, group=user, extra_groups=[], capture_output=True
        )
        if done.returncode == 0:
            return [*env, str(python)]
    return None


@pytest.fixture(scope="module", params=["as I am", "ordinary user"])
def user(request) -> int | None:
    if request.param == "as I am":
        return None
    if os.geteuid() != 0:
        pytest.skip("the tests already run as an ordinary user")
    if python_for(12345) is None:
        pytest.skip("an ordinary user can run neither this Python nor the system's with our packages")
    return 12345


def test_there_are_enough_attacks():
    assert len(attacks.FORGERS) + len(attacks.BREAKERS) + len(attacks.LATE) >= 25


def test_no_attack_passes_or_leaves_a_trace(world, user):
    tried = programs(world)
    records = audit(world, [row(program) for program in tried.values()], user)
    passed = [name for name, record in zip(tried, records, strict=True) if record["correct"]]
    assert passed == []
    unsure = {name: r["detail"] for name, r in zip(tried, records, strict=True) if r["status"] == "error"}
    assert unsure == {"thread bomb": "the program could not start a thread here"}
    assert Path(world["marker"]).read_text() == "untouched"
    assert Path(world["marker"]).stat().st_mode & 0o777 == 0o666
    assert not [path for path in ("/tmp", "/dev/shm") if Path(path, "escaped-by-verifiers-attack").is_symlink()]
    assert not [path for path in ("/tmp", "/dev/shm") if Path(path, "escaped-by-verifiers-attack").exists()]
    os.kill(world["victim"], 0)
    with pytest.raises(TimeoutError):
        world["listener"].accept()
    assert left_over(str(REPO / "verifiers")) == []


def test_late_programs_are_timeouts_and_harmless_ones_pass(world, user):
    tried = attacks.LATE | attacks.HARMLESS
    started = time.monotonic()
    records = dict(zip(tried, audit(world, [row(p) for p in tried.values()], user, "--workers", "4"), strict=True))
    assert [name for name in attacks.LATE if records[name]["correct"]] == []
    assert {records[name]["status"] for name in attacks.LATE} == {"timeout"}
    assert [name for name in attacks.HARMLESS if not records[name]["correct"]] == []
    assert time.monotonic() - started < len(attacks.LATE) * LIMIT + 30
    assert left_over(str(REPO / "verifiers")) == []


def test_thieves_find_nothing_of_their_siblings():
    """One right program and seven thieves in one batch on one fork server: only the right one passes."""
    code = CodeTests(time_limit=20, workers=1)
    problem = Problem("", "", json.dumps({"test_list": ["assert double(2) == 4"]}))
    batch = [attacks.SIBLINGS["right"], *attacks.THIEVES.values()]
    assert len(batch) == 8
    verdicts = code.batch([(problem, program) for program in batch])
    assert [verdict.correct for verdict in verdicts] == [True] + [False] * 7
    for sibling in attacks.SIBLINGS.values():  # and one at a time, each right behind what it looks for
        items = [(problem, program) for thief in attacks.THIEVES.values() for program in (sibling, thief)]
        assert not any(graded.verdict.correct for graded in code.judge_all(items)[1::2])


def test_the_heap_scan_finds_what_is_there():
    """The thieves' tool works: it finds a text that the program itself holds."""
    program = "text = 'KE' + 'Y=%d' % 4\n" + attacks.THIEVES["heap scan for a program"]
    problem = Problem("", "", json.dumps({"test_list": ["assert double(2) == 4"]}))
    assert CodeTests(time_limit=20, workers=1)(problem, program).correct


def test_the_walls_hold_without_bubblewrap(world, user, monkeypatch, tmp_path):
    """Namespaces, Landlock and seccomp alone stop every attack too."""
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    tried = programs(world)
    records = audit(world, [row(program) for program in tried.values()], user)
    assert [name for name, record in zip(tried, records, strict=True) if record["correct"]] == []
    assert Path(world["marker"]).read_text() == "untouched"
    os.kill(world["victim"], 0)


HARNESS = """
import json, sys, threading, time
from harness.core import Problem
from verifiers.code_tests import CodeTests
from verifiers.math_answer import MathAnswer
code, math = CodeTests(time_limit=60, workers=2), MathAnswer("bare", time_limit=60)
problem = Problem("0", "", json.dumps({"test_list": ["assert f() == 1"]}))
for text in ("def f():\\n    while True: pass", "import time\\ndef f():\\n    time.sleep(100)"):
    threading.Thread(target=code, args=(problem, text), daemon=True).start()
threading.Thread(target=math, args=(Problem("1", "", "5"), "\\\\sqrt{2}"), daemon=True).start()
time.sleep(4)
print("ready", flush=True)
time.sleep(100)
"""


def descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.parametrize("with_bubblewrap", [True, False])
def test_nothing_survives_a_killed_harness(with_bubblewrap, tmp_path):
    env = dict(os.environ) if with_bubblewrap else os.environ | {"PATH": str(tmp_path)}
    harness = subprocess.Popen([sys.executable, "-c", HARNESS], cwd=REPO, env=env, stdout=subprocess.PIPE, text=True)
    assert harness.stdout is not None
    assert harness.stdout.readline() == "ready\n"
    family = descendants(harness.pid)
    assert len(family) >= 5  # two fork servers, their candidates and tests, a math worker
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    deadline, alive = time.monotonic() + 10, set(family)
    while time.monotonic() < deadline and (alive := {pid for pid in family if Path(f"/proc/{pid}").exists()}):
        time.sleep(0.05)
    assert alive == set()
    harness.stdout.close()
