"""The processor's name in run.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import machine


@pytest.fixture(autouse=True)
def _uncached():
    machine.cpu_name.cache_clear()
    yield
    machine.cpu_name.cache_clear()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD  EPYC 9R14\nflags : x\n", "AMD EPYC 9R14"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "implementer 0x41 part 0xd0c"),
        ("processor\t: 0\nhart\t: 0\nuarch\t: sifive,u74-mc\n", "sifive,u74-mc"),
    ],
)
def test_linux_tells_the_name(text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.cpu_name().endswith(name)


def test_elsewhere_there_is_a_name_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    assert machine.cpu_name()


def test_the_engine_tells_it(micro) -> None:
    told = micro.describe()
    assert told["device_name"] == machine.cpu_name()
    assert told["device_name"] != "cpu"
    assert told["cpu_capability"]
