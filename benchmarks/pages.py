"""Puts what was measured into docs/performance.md: its tables are written from benchmarks/results/, never by hand.

`python -m benchmarks.pages` fills every part of the page that stands between two marks (`<!-- step -->` and
`<!-- end of step -->`); the benchmarks do so when they end.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.machine import cpu_name

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
PHASES: tuple[str, ...] = ("sample", "grade", "reference", "policy", "backward", "other")
# Least ratio of CPU seconds to TRL and to our former structure, and most peak memory to the latter, set beforehand.
AIMS: dict[str, tuple[float | None, float | None, float | None]] = {
    "embedded": (2.0, None, None),
    "1m": (1.6, None, None),
    "long_prompt": (3.0, 2.5, 0.5),
    "long_replies": (1.3, None, None),
}
BENDS = 1.7  # a doubling that costs more than this much shows that work, not the fixed cost of a call, decides


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """What a result is worth nothing without; `trl` is None where it is not installed."""
    versions: dict[str, str | None] = {name: metadata.version(name) for name in ("torch", "transformers")}
    try:
        versions["trl"] = metadata.version("trl")
    except metadata.PackageNotFoundError:
        versions["trl"] = None
    machine: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "threads": 1,
    }
    if device != "cpu":
        import torch

        machine["gpu"] = torch.cuda.get_device_name(device)
    return {"machine": machine, "versions": versions}


def describe_step(report: dict[str, Any]) -> str:
    """Tables of what `benchmarks.step` measured: the sides, the aims, and what our phases reach of the matrix peak."""
    results, rows, products = report["results"], [], []
    aims = [line for item in results if "trl" in item["sides"] for line in _aims(item)]
    for item in results:
        for side, told in item["sides"].items():
            ratio = "{:.2f} ({:.2f}-{:.2f})".format(*told["ratio"]) if "ratio" in told else ""
            seconds, parts = told["cpu_s_all"], [f"{told['phases'][name]:.2f}" for name in PHASES]
            spent = f"{told['cpu_s']:.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
            rows.append([item["workload"], f"{item['kl']:g}", side, spent, ratio, f"{told['peak_mb']:.0f}", *parts])
        ours = item["sides"]["ours"]
        for name, told in ours["products"].items():
            rate, done = told["operations"] / told["alone"] / 1e9, told["operations"] / 1e9
            phase, share = ours["phases"][name], f"{100 * told['fraction']:.0f} %"
            numbers = [f"{done:.2f}", f"{told['alone']:.3f}", f"{phase:.3f}", f"{rate:.0f}", share]
            products.append([item["workload"], f"{item['kl']:g}", name, *numbers])
    loads, gaps = [item["load"] for item in results], [gap for item in results for gap in item["gate"].values()]
    rounds = ", ".join(f"{name} {n}" for name, n in {i["workload"]: i["work"]["rounds"] for i in results}.items())
    layers = {str(i["work"]["shape"]["num_hidden_layers"]) for i in results if i["workload"] == "long_prompt"}
    return "\n".join(
        [
            f"{_machine(report)}; medians and ranges of rounds ({rounds}); load while it ran "
            f"{min(loads):.1f}-{max(loads):.1f}. Loss and gradient of the sides differ by at most {max(gaps):.0e}. "
            + "".join(f"long_prompt's model has {n} layers." for n in layers),
            "",
            *_table(["workload", "kl", "side", "CPU s", "ratio to ours", "peak MB", *PHASES], rows, 3),
            "",
            "Aims, and two bounds: what the ratio would be if our sampling took no time, and if our step took only the "
            "time of its linear layers' products.",
            "",
            *_table(["workload", "kl", "of what", "aim", "reached", "without sampling", "products alone"], aims, 3),
            "",
            "What our phases reach of the matrix peak: the linear layers' products alone, same shapes, weights and "
            "order.",
            "",
            *_table(
                ["workload", "kl", "phase", "GFLOP", "alone, s", "phase, s", "peak, GFLOP/s", "reached"], products, 3
            ),
        ]
    )  # fmt: skip


def describe_growth(report: dict[str, Any]) -> str:
    """Two tables of what `benchmarks.growth` measured: doublings, and where sharing prompts breaks even."""
    rows: list[list[str]] = []
    for axis, points in report["growth"].items():
        for phase in ("sample", "gradient"):
            seconds = [point[phase] for point in points]
            doublings = [math.log2(b["value"] / a["value"]) for a, b in itertools.pairwise(points)]
            costs = itertools.pairwise(seconds)
            ratios = [(b / a) ** (1 / n) for (a, b), n in zip(costs, doublings, strict=True)]
            bend = next((p["value"] for p, ratio in zip(points[1:], ratios, strict=True) if ratio > BENDS), None)
            values = f"{points[0]['value']:,} to {points[-1]['value']:,}"
            each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
            rows.append([axis, values, phase, each, f"{bend:,}" if bend else "not reached"])
    even = [
        [point["model"], f"{100 * point['predicted']:.0f} %", f"{point['plain']:.3f}", f"{point['shared']:.3f}",
         f"{100 * (1 - point['shared'] / point['plain']):.0f} %"]
        for point in report["sharing"]
    ]  # fmt: skip
    base = ", ".join(f"{axis} {value:,}" for axis, value in report["base"].items())
    return "\n".join(
        [
            f"{_machine(report)}; least of {report['rounds']} rounds; load {report['load']:.1f}. The step that is "
            f"doubled: {base}. \"bends at\" is the first value whose doubling costs more than {BENDS}.",
            "",
            *_table(["doubled", "from, to", "phase", "cost of each doubling", "bends at"], rows, 1),
            "",
            "![CPU seconds of sampling and of the gradient as each of them grows](images/growth.svg)",
            "",
            "Gradient with plain rows and with trees, forced, where the counts predict a saving:",
            "",
            *_table(["model", "predicted saving", "plain, CPU s", "shared, CPU s", "measured saving"], even, 1),
        ]
    )  # fmt: skip


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {"step": describe_step, "growth": describe_growth}


def fill(text: str) -> str:
    """The page with every part written anew from the results; a part without results says so."""
    for name, describe in PARTS.items():
        head, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- end of {name} -->\n")
        if not mark or not end:
            raise ValueError(f"docs/performance.md has no part <!-- {name} --> ... <!-- end of {name} -->")
        file = RESULTS / f"{name}.json"
        body = describe(json.loads(file.read_text())) if file.exists() else f"No results of `benchmarks.{name}` yet."
        text = f"{head}{mark}\n{body}\n\n{end}{tail}"
    return text


def fill_page() -> None:
    """Writes docs/performance.md."""
    PAGE.write_text(fill(PAGE.read_text()))


def _aims(item: dict[str, Any]) -> Iterator[list[str]]:
    sides, name = item["sides"], f"{item['kl']:g}"
    ours = sides["ours"]["cpu_s"]
    rest, least = ours - sides["ours"]["phases"]["sample"], sum(p["alone"] for p in sides["ours"]["products"].values())
    trl, former, memory = AIMS.get(item["workload"], (None, None, None))
    for side, aim in (("trl", trl), ("former", former)):
        if aim:
            bounds = [f"{sides[side]['cpu_s'] / other:.2f}" for other in (rest, least)]
            reached = f"{sides[side]['ratio'][0]:.2f}"
            yield [item["workload"], name, f"CPU seconds, {side} / ours", f"{aim:.1f}", reached, *bounds]
    if memory:
        reached = f"{sides['ours']['peak_mb'] / sides['former']['peak_mb']:.2f}"
        yield [item["workload"], name, "peak memory, ours / former", f"{memory:.2f}", reached, "", ""]


def _machine(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version)
    return f"{report['machine']['cpu']}, one thread; {versions}"


def _table(head: list[str], rows: Iterable[list[str]], words: int) -> list[str]:
    """Lines of a table whose first `words` columns are words, the others numbers."""
    rules = ["---" if i < words else "--:" for i in range(len(head))]
    return ["| " + " | ".join(row) + " |" for row in (head, rules, *rows)]


if __name__ == "__main__":
    fill_page()
