"""The processor's name, as its maker calls it: what run.json records of the machine besides torch's own view."""

from __future__ import annotations

import functools
import platform
import re
import subprocess
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# x86 and POWER, some ARM boards, RISC-V, s390; other ARM kernels tell numbers only, which name a core as well.
FIELDS = ("model name", "cpu model", "cpu", "Hardware", "uarch", "Model")


@functools.cache
def cpu_name() -> str:
    """'AMD EPYC 9R14' or what the system says: never empty, at worst the architecture ('aarch64')."""
    return _linux() or _macos() or platform.processor() or platform.machine() or "cpu"


def _linux() -> str:
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    told = dict(re.findall(r"^([^:\n]+?)[ \t]*:[ \t]*(.*\S)", text, re.MULTILINE))
    for field in FIELDS:
        if field in told:
            return " ".join(told[field].split())
    if "CPU implementer" in told and "CPU part" in told:
        return f"{platform.machine()} implementer {told['CPU implementer']} part {told['CPU part']}"
    return ""


def _macos() -> str:
    if platform.system() != "Darwin":
        return ""
    try:
        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
