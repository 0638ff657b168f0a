"""requirements.lock, constraints.txt and pyproject.toml tell of one environment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from harness import config
from harness.training.provenance import VERSIONS

ROOT: Path = config.ROOT
LEFT_OUT = {"torch"}  # its builds have one version and many hashes


def locked() -> dict[str, tuple[Version, list[str]]]:
    """{package: (version, its hashes)} of requirements.lock."""
    text = "".join(line for line in (ROOT / "requirements.lock").read_text().splitlines(True) if line[0] != "#")
    found = {}
    for entry in text.replace("\\\n", " ").splitlines():
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+) *", entry)
        assert match, f"no pinned and hashed entry: {entry[:200]}"
        name = canonicalize_name(match[1])
        assert name not in found
        found[name] = Version(match[2]), match[3].split()
    return found


def pinned() -> dict[str, str]:
    """{package: version} of constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def declared() -> list[Requirement]:
    """What pyproject.toml asks for: the run, the tests, the extras that `make test` installs, and the build."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, extras = whole["project"], whole["project"]["optional-dependencies"]
    texts = [*whole["build-system"]["requires"], *project["dependencies"]]
    texts += [text for name in ("test", "dev", "peft", "tensorboard", "slurm") for text in extras[name]]
    return [r for r in map(Requirement, texts) if canonicalize_name(r.name) != "score-harness"]


def test_every_package_is_locked_with_hashes_and_no_address() -> None:
    found = locked()
    assert len(found) > 100
    assert not LEFT_OUT & set(found)
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_the_lock_has_the_constraints_versions() -> None:
    found, pins = locked(), pinned()
    assert {name for name in pins if name not in found} == LEFT_OUT
    assert {n: str(found[n][0]) for n in pins if n in found} == {n: v for n, v in pins.items() if n in found}
    assert f'"torch=={pins["torch"]}"' in (ROOT / "requirements.lock").read_text()


def test_the_lock_has_all_that_the_project_declares_in_the_range_it_declares() -> None:
    found = locked()
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT:
            assert requirement.specifier.contains(pinned()[name])
        else:
            assert requirement.specifier.contains(found[name][0]), requirement


def test_what_grades_and_computes_intervals_is_locked_and_recorded() -> None:
    graders = {
        "sympy", "mpmath", "latex2sympy2-extended", "antlr4-python3-runtime", "math-verify", "safetensors", "rapidfuzz",
        "orjson", "scipy", "numpy", "jinja2", "huggingface-hub", "tokenizers", "transformers", "torch",
    }  # fmt: skip
    assert graders <= set(VERSIONS)
    assert set(VERSIONS) - LEFT_OUT <= set(locked())
