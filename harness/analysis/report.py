"""The report: `python -m harness.report results/ --out report.html` writes one self-contained page.

Leaderboard (sort, filter), figures, training curves and a trajectory browser (filter by method, outcome, seed; attempts
side by side with a diff). The page asks nothing of any network, and a content security policy with the hash of its one
script holds it to that: text written by a model is data, shown by `textContent`, and could not run if it were markup.
Not covered: every trajectory of large evaluations; of each run the same `--trajectories` problems are embedded.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from harness.analysis import leaderboard, plots, tables
from harness.analysis.plots import Missing, Scope
from harness.runs import reader
from harness.runs.reader import Evaluation, Run
from harness.runs.schema import curve_value

TEMPLATES = Path(__file__).parent / "templates"
CURVES = (
    "reward_t1", "reward_t2", "acc_t1", "acc_t2", "acc_t2_own_validation", "acc_t2_fixed_validation",
    "acc_t2_fixed_train", "delta", "answer_change", "edit_ratio", "kl_t1", "kl_t2", "bonus_t2",
    "entropy_t1", "entropy_t2", "length_t1", "length_t2", "truncated_t1", "truncated_t2", "no_answer_t1",
    "no_answer_t2", "error_t1", "error_t2", "grad_norm", "trajectories_per_second",
)  # fmt: skip
FIRSTS = {"given": ", first attempts given", "reference": ", first attempts the base model's"}
POINTS = 120  # per training curve; longer logs are averaged in equal bins


def build(root: Path | str, *, gin: Path = leaderboard.GIN, trajectories: int = 200, figures: bool = True) -> str:
    """The page as text; equal results give equal bytes.

    Args:
        root: A results folder.
        gin: Folder of the gin files, for the leaderboard's lineage.
        trajectories: Problems per run whose trajectories are embedded.
        figures: Whether to draw the figures.

    Raises:
        FileNotFoundError: `root` is no folder.
    """
    scopes, board = plots.scopes(root, gin=gin)
    runs = {run.label: run for scope in scopes for row in scope.rows for run in scope.runs.get(row.name, [])}
    embedded, total = _browser(scopes, trajectories)
    data = {"runs": embedded, "curves": [curve for run in runs.values() if (curve := _curves(run))]}
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    held = sum(len(run["items"]) for run in embedded)
    note = f"{held} of {total} greedy trajectories of the finished runs are in this page"
    note += "; the same problems of every run." if held < total else "."
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        leaderboard=tables.fragment(board, deeper=1),
        figures=[_figures(scope, len(scopes) > 1) for scope in scopes] if figures else [],
        has_curves=bool(data["curves"]),
        browser_note=note,
        data=_script_safe(data),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script_safe(data: Any) -> str:
    """JSON that no HTML parser can see a tag, comment or entity in."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _browser(scopes: Sequence[Scope], most: int) -> tuple[list[dict[str, Any]], int]:
    """The embedded trajectories by run and evaluation, and how many there are in the run folders."""
    found, total = [], 0
    for scope in scopes:
        for row in scope.rows:
            for run in scope.runs.get(row.name, []):
                for evaluation in scope.evaluations(row, split="test"):
                    if evaluation not in run.finals or evaluation.digest != scope.section.subject.digest:
                        continue
                    chosen = _chosen(evaluation, most)
                    key = evaluation.key
                    records = reader.read_records(run.path, whens=(key.when,))
                    records = [record for record in records if reader.key_of(record) == key]
                    total += len(records)
                    items = [_item(record) for record in records if record["id"] in chosen]
                    items.sort(key=lambda item: (item[0], item[1]))
                    name = f"{key.task}, {run.policy}" + FIRSTS.get(key.first, "")
                    name += f", {evaluation.summary['turns']} attempts" if evaluation.summary["turns"] != 2 else ""
                    found.append({"name": row.name, "seed": run.seed, "scope": name, "items": items})
    return found, total


def _chosen(evaluation: Evaluation, most: int) -> set[str]:
    """The problems with the smallest hashes: a fixed sample, the same for every run."""
    ranked = sorted(evaluation.problems, key=lambda problem: hashlib.sha256(problem.encode()).digest())
    return set(ranked[:most])


def _item(record: dict[str, Any]) -> list[Any]:
    shown = itemgetter("text", "answer", "correct", "status", "tokens", "truncated", "by")
    return [record["id"], record["sample"], list(map(shown, record["attempts"])), record.get("prompt", "")]


def _curves(run: Run) -> dict[str, Any] | None:
    """A run's logged quantities, at most `POINTS` (update, value) pairs each; None for runs without a log."""
    steps = run.steps()
    series = {}
    for key in CURVES:
        points = [(s["step"], value) for s in steps if (value := curve_value(s, key)) is not None]
        if points:
            width = -(-len(points) // POINTS)
            bins = [points[i : i + width] for i in range(0, len(points), width)]
            means = ([sum(p[i] for p in part) / len(part) for i in (0, 1)] for part in bins)
            series[key] = [[round(step, 1), float(f"{value:.5g}")] for step, value in means]
    return {"name": run.name, "seed": run.seed, "series": series} if series else None


def _figures(scope: Scope, several: bool) -> dict[str, Any]:
    drawn, missing = [], []
    for name, figure in plots.draw(scope):
        if isinstance(figure, Missing):
            missing.append((name, str(figure)))
            continue
        text = (plots.FIGURES[name].draw.__doc__ or name).strip().splitlines()[0]
        drawn.append({"text": text, "paper": plots.FIGURES[name].paper, "data": _image(figure)})
        plt.close(figure)
    title = tables.title_of(scope.section.subject) if several else ""
    return {"title": title, "drawn": drawn, "missing": missing}


def _image(figure: Figure) -> str:
    """A figure as a data address: SVG whose letters are outlines, so it needs no font and holds no live text."""
    file = io.BytesIO()
    with mpl.rc_context({**plots.STYLE, "svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
