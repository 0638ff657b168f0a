"""The report: `python -m harness.report results/ --out report.html` writes one self-contained page.

Leaderboard (sort, filter), figures, training curves and a trajectory browser: attempts with a diff, or one problem over
all rows and seeds side by side. The address bar holds what is filtered, sorted and open. The page asks nothing of any
network, and a content security policy with the hash of its one script holds it to that: text written by a model is
data, shown by `textContent`, and could not run if it were markup.
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

from harness.analysis import leaderboard, plots, tables, terms
from harness.analysis.leaderboard import Board
from harness.analysis.plots import Missing, Scope
from harness.runs import reader
from harness.runs.reader import EvalResult, Run
from harness.runs.schema import curve_value

TEMPLATES = Path(__file__).parent / "templates"
VENDOR = TEMPLATES / "vendor"
SCRIPTS = ("page.js", "tables.js", "curves.js", "formulas.js", "browser.js")  # one program, in this order
LIBRARIES = (("uPlot.iife.min.js", "uPlot.LICENSE"), ("katex.min.js", "katex.LICENSE"))
CURVES = {
    "reward_t1": "reward of attempt 1", "reward_t2": "reward of attempt 2", "acc_t1": "training accuracy of attempt 1",
    "acc_t2": "training accuracy of attempt 2", "acc_t2_own_validation": "validation accuracy of attempt 2, own drafts",
    "acc_t2_fixed_validation": "validation accuracy of attempt 2, fixed drafts",
    "acc_t2_fixed_train": "accuracy of attempt 2 on training problems, fixed drafts",
    "delta": "Δ(t1,t2) in training", "answer_change": "share of changed answers", "edit_ratio": "edit ratio",
    "kl_t1": "KL of attempt 1, nats", "kl_t2": "KL of attempt 2, nats", "bonus_t2": "bonus of attempt 2",
    "entropy_t1": "entropy of attempt 1, nats", "entropy_t2": "entropy of attempt 2, nats",
    "length_t1": "tokens of attempt 1", "length_t2": "tokens of attempt 2",
    "truncated_t1": "share of truncated attempts 1", "truncated_t2": "share of truncated attempts 2",
    "no_answer_t1": "share of attempts 1 without an answer", "no_answer_t2": "share of attempts 2 without an answer",
    "error_t1": "share of attempts 1 not graded", "error_t2": "share of attempts 2 not graded",
    "grad_norm": "norm of the gradient", "trajectories_per_second": "trajectories per second",
}  # fmt: skip
FIRSTS = {"given": ", first attempts given", "reference": ", first attempts the base model's"}
POINTS = 120  # per training curve; longer logs are averaged in equal bins
MOST_BYTES = 10_000_000  # of a page; fewer problems are embedded where it would be larger


def build_report(
    root: Path | str, *, gin: Path = leaderboard.GIN, trajectories: int = 200, figures: bool = True
) -> str:
    """The page as text; equal results give equal bytes.

    Args:
        root: A results folder.
        gin: Folder of the gin files, for the leaderboard's lineage.
        trajectories: Problems per run whose trajectories are embedded.
        figures: Whether to draw the figures.

    Raises:
        FileNotFoundError: `root` is no folder.
    """
    scopes, board = plots.read_scopes(root, gin=gin)
    runs = {run.label: run for scope in scopes for row in scope.rows for run in scope.runs.get(row.name, [])}
    runs_held, asked, total = _browser(scopes, trajectories)
    title = f"Self-correction results: {Path(root).resolve().name}"
    heads = sorted({head for block in tables.build_blocks(board) for head in block.header})
    defined = {head: text for head in heads if (text := terms.define_head(head))}
    curves = [curve for run in runs.values() if (curve := _curves(run))]
    style, script = _style(), _script()
    shown = {
        "title": title,
        "head": _head(board, list(runs.values())),
        "style": style,
        "script": script,
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "leaderboard": tables.render_html_fragment(board, deeper=1),
        "figures": [_figures(scope, i, len(scopes) > 1) for i, scope in enumerate(scopes)] if figures else [],
        "has_curves": bool(curves),
        "glossary": sorted({**defined, **terms.WORDS}.items(), key=lambda item: item[0].lower()),
    }  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    template = environment.get_template("report.html")
    while True:
        embedded, problems = _first_problems(runs_held, asked, trajectories)
        held = sum(len(run["items"]) for run in embedded)
        note = f"{held} of {total} greedy trajectories of the finished runs are in this page"
        note += "; the same problems of every run." if held < total else "."
        data = {"runs": embedded, "scopes": problems, "curves": curves, "quantities": CURVES, "terms": defined}
        page = template.render(**shown, browser_note=note, data=_script_safe(data))
        size = len(page.encode())
        if size <= MOST_BYTES or trajectories <= 1:
            return page
        trajectories = max(1, min(trajectories - 1, int(0.9 * trajectories * MOST_BYTES / size)))


def _style() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in (VENDOR / "uPlot.min.css", TEMPLATES / "report.css"))


def _script() -> str:
    """The libraries with their licences, then the page's own parts as one program."""
    libraries = [
        f"/*!\n{(VENDOR / licence).read_text(encoding='utf-8')}*/\n{(VENDOR / name).read_text(encoding='utf-8')}"
        for name, licence in LIBRARIES
    ]
    own = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return "\n".join([*libraries, f'(() => {{\n"use strict";\n{own}}})();\n'])


def _head(board: Board, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What the page is of: (name, text). Dates and commits are the runs' own, so equal results give equal pages."""
    left_out = sum(trouble.left_out for trouble in board.troubles)

    def told(key: str, most: int) -> list[str]:
        return sorted({str(value)[:most] for run in runs if (value := run.info.get(key))})

    dates, commits = told("started", 10), told("commit", 12)
    counts = {
        "runs": len(runs), "rows": len({run.name for run in runs}), "seeds": len({run.seed for run in runs}),
        "tables": len(board.sections),
    }  # fmt: skip
    head = [(name, str(count)) for name, count in counts.items()]
    head += [("trained", " to ".join(dict.fromkeys((dates[0], dates[-1]))))] if dates else []
    head += [("commit", ", ".join(commits[:3]) + (f" and {len(commits) - 3} more" if len(commits) > 3 else ""))] * bool(
        commits
    )
    head += [("left out", f"{left_out} {'run' if left_out == 1 else 'runs'}, listed below the tables")] * bool(left_out)
    return head


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script_safe(data: Any) -> str:
    """JSON that no HTML parser can see a tag, comment or entity in."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _browser(scopes: Sequence[Scope], most: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """The trajectories by run and evaluation; of each evaluation its problems; how many there are in the run folders.

    Problems are embedded once for all runs, in the order in which they are kept when fewer fit.
    """
    found, asked, total = [], [], 0
    for scope in scopes:
        places: dict[str, int] = {}
        for row in scope.rows:
            for run in scope.runs.get(row.name, []):
                for evaluation in scope.select_evaluations(row, split="test"):
                    if (
                        evaluation not in run.final_evaluations
                        or evaluation.problems_digest != scope.section.subject.digest
                    ):
                        continue
                    key = evaluation.key
                    name = f"{key.task}, {run.policy}" + FIRSTS.get(key.first, "")
                    name += f", {evaluation.summary['turns']} attempts" if evaluation.summary["turns"] != 2 else ""
                    if name not in places:
                        places[name] = len(asked)
                        asked.append({"name": name, "problems": dict.fromkeys(_chosen(evaluation, most))})
                    problems = asked[places[name]]["problems"]
                    records = reader.read_records(run.path, whens=(key.when,))
                    records = [record for record in records if reader.key_of(record) == key]
                    total += len(records)
                    records = [record for record in records if record["id"] in problems]
                    for record in records:  # runs of before gold answers were written lack them
                        told = [record.get("prompt", ""), record.get("gold", "")]
                        known = problems[record["id"]] or ["", ""]
                        problems[record["id"]] = [old or new for old, new in zip(known, told, strict=True)]
                    items = sorted(map(_item, records), key=lambda item: (item[0], item[1]))
                    found.append({"name": row.name, "seed": run.seed, "scope": places[name], "items": items})
    names = [scope["name"] for scope in asked]
    for i, scope in enumerate(asked):  # two tables of one name, as of two versions of a task, stay apart
        scope["name"] += f" ({1 + names[:i].count(scope['name'])})" if names.count(scope["name"]) > 1 else ""
    return found, asked, total


def _first_problems(
    runs: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]], most: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The same with the first `most` problems of each evaluation."""
    scopes = [{**scope, "problems": dict(list(scope["problems"].items())[:most])} for scope in asked]
    kept = [scope["problems"] for scope in scopes]
    return [{**run, "items": [item for item in run["items"] if item[0] in kept[run["scope"]]]} for run in runs], scopes


def _chosen(evaluation: EvalResult, most: int) -> list[str]:
    """The problems with the smallest hashes: a fixed sample, the same for every run."""
    return sorted(evaluation.problems, key=lambda problem: hashlib.sha256(problem.encode()).digest())[:most]


def _item(record: dict[str, Any]) -> list[Any]:
    shown = itemgetter("text", "answer", "correct", "status", "tokens", "truncated", "by")
    attempts = [
        [*shown(attempt), *([attempt["reason"]] if "reason" in attempt else [])] for attempt in record["attempts"]
    ]
    return [record["id"], record["sample"], attempts]


def _curves(run: Run) -> dict[str, Any] | None:
    """A run's logged quantities, at most `POINTS` (update, value) pairs each; None for runs without a log."""
    steps = run.read_steps()
    series = {}
    for key in CURVES:
        points = [(s["step"], value) for s in steps if (value := curve_value(s, key)) is not None]
        if points:
            width = -(-len(points) // POINTS)
            bins = [points[i : i + width] for i in range(0, len(points), width)]
            means = ([sum(p[i] for p in part) / len(part) for i in (0, 1)] for part in bins)
            series[key] = [[round(step, 1), float(f"{value:.5g}")] for step, value in means]
    return {"name": run.name, "seed": run.seed, "series": series} if series else None


def _figures(scope: Scope, place: int, several: bool) -> dict[str, Any]:
    drawn, missing = [], []
    for name, figure in plots.draw_figures(scope):
        if isinstance(figure, Missing):
            missing.append((name, str(figure)))
            continue
        text = (plots.FIGURES[name].draw.__doc__ or name).strip().splitlines()[0]
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        about = {"id": f"figure-{place + 1}-{name}", "text": text, "paper": plots.FIGURES[name].paper}
        drawn.append({**about, "width": width, "height": height, "data": _image(figure)})
        plt.close(figure)
    title = tables.title_of(scope.section.subject) if several else ""
    return {"title": title, "drawn": drawn, "missing": missing}


def _image(figure: Figure) -> str:
    """A figure as a data address: SVG whose letters are outlines, so it needs no font and holds no live text."""
    file = io.BytesIO()
    with mpl.rc_context({**plots.STYLE, "svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
