"""Renders a leaderboard (`harness.analysis.leaderboard.Board`) as Markdown, CSV, LaTeX, HTML or JSON.

Every text that came from a run folder (names, bindings, error messages) is escaped for the format it goes into. Nothing
is set in bold: read a difference by its interval. No dates and no absolute paths, so equal runs give equal bytes.
Above 300 lines because it is five formats of one list of blocks.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.analysis.budgets import Spending
from harness.analysis.controls import GAINS
from harness.analysis.escape import LEAST
from harness.analysis.leaderboard import BASE, AcrossBases, Board, Comparison, ComparisonKey, Overall, Row, Section
from harness.metrics import FAILURES, METRICS, Metric, stats
from harness.metrics.stats import Equivalence, Interval

TITLE = "Leaderboard"
LEFT_OUT = "Not in the tables"
NONE = "–"
CONTROLS = {
    "own": "t2 after own", "right": "right", "wrong": "wrong", "other": "other", "reference": "base's",
    "relabelled": "relabelled", "blind": "blind", "reliance": "reliance", "gain_over_blind": "gain over blind",
    "gain_over_other": "gain over other", "role_gap": "role gap",
}  # fmt: skip
SPENDING = {
    "sampled_tokens": "sampled tokens", "read_tokens": "read tokens", "trained_tokens": "trained tokens",
    "flops": "FLOPs",
}  # fmt: skip


class Cell(NamedTuple):
    """One cell: the text, a lighter bracket after it, and what to sort by (None: the text)."""

    text: str
    bracket: str = ""
    sort: float | None = None


@dataclass(frozen=True)
class Block:
    """One table with its heading; `split` is the column at which a page of paper has to break it."""

    title: str
    level: int
    lead: str = ""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    notes: tuple[str, ...] = ()
    split: int | None = None
    name: str = ""


def build_blocks(board: Board) -> Iterator[Block]:
    """The board as tables in reading order, the paper's own numbers after ours, what was left out last."""
    empty = "No run stands in a table; why, is told of each below." if board.troubles else "No finished run was found."
    yield Block(TITLE, 1, lead="" if board.sections else empty)
    for section in board.sections:
        yield from _section(section)
    for overall in board.overall:
        yield _overall(overall)
    for crossed in board.bases:
        yield _across_bases(crossed)
    if board.paper["tables"]:
        yield Block("Reference: the paper's own numbers", 2, lead=f"{board.paper['source']}. {board.paper['note']}")
    for table in board.paper["tables"]:
        header = ("Method", *(_heading(q, 2) for q in table["columns"]))
        rows = tuple((Cell(r[0]), *_paper_cells(table, r[1:])) for r in table["rows"])
        yield Block(table["title"], 3, header=header, rows=rows, name="paper")
    if board.troubles:
        rows = tuple((Cell(t.path), Cell(t.message), Cell("no" if t.left_out else "yes")) for t in board.troubles)
        yield Block(LEFT_OUT, 2, header=("Run", "Why", "Row in a table"), rows=rows, name="troubles")


def _section(section: Section) -> Iterator[Block]:
    subject, turns, own = section.subject, section.subject.turns, section.subject.first == "policy"
    shown = list(dict.fromkeys(["t1", "t2", f"t{turns}"][: max(1, turns)])) if turns > 1 else ["t1"]
    beside_accuracy = _of_place("accuracy", turns)
    columns = [*shown, *(metric.name for metric in beside_accuracy)]
    records = max(int(row.rates["n"]) for row in section.rows)
    several = not own and records > section.problems
    if not own:  # attempt 1 is not the row's: no accuracy of it, nothing gained over it
        fixable = any(row.rates["correct"][0] for row in section.rows)
        columns = list(dict.fromkeys(["t2", f"t{turns}"]))
        columns += [metric.name for metric in beside_accuracy if not metric.signed] if fixable else []
    notes: dict[str, int] = {}
    for row in section.rows:
        for note in row.notes:
            notes.setdefault(note, len(notes) + 1)
    names = {row.name: row.name + "".join(f" ({notes[note]})" for note in row.notes) for row in section.rows}
    header = ["Method", *(_heading(q, turns) for q in columns), *([f"p(t1=t{turns})"] if turns > 1 and own else [])]
    header += ["per first attempt"] if several else []
    header += ["seeds", *(["majority@2"] if own else []), "responses", "updates", "difference from parent"]
    body: list[tuple[Cell, ...]] = [
        (Cell(names[row.name]), *(_metric_cell(row, q) for q in columns),
         *([_p(row.p)] if turns > 1 and own else []),
         *([_plain(row.rates["acc_records"][-1])] if several else []), _seed_count(row.seeds),
         *([_percent(row.cells.get("majority_2"))] if own else []),
         _count(row.budget["responses"]), _count(row.budget["updates"]), Cell(_short(row.difference) or NONE))
        for row in section.rows
    ]  # fmt: skip
    for beside in section.beside:
        at = 1 + shown.index("t1") if beside.label.endswith("Acc@t1") else header.index("majority@2")
        line = [Cell(NONE)] * len(header)
        line[0], line[-1] = Cell(f"beside: {beside.label}"), Cell(beside.note or NONE)
        line[at] = _percent(beside.cell)
        body.append(tuple(line))
    firsts = f", {records} fixed first attempts" if not own else ""
    firsts += "; accuracy is of a problem's mean, per first attempt that of all alike" if several else ""
    lead = (
        f"{section.problems} problems{firsts}; greedy decoding; percent of all problems, in brackets 95 % intervals. "
        f"Responses and updates are what the training of one seed spent."
    )
    yield Block(
        title_of(subject), 2, lead, tuple(header), tuple(body), (*_numbered(notes), *section.notes),
        split=len(columns) + 1, name="accuracy",
    )  # fmt: skip
    yield _behaviour(section)
    if section.controls:
        yield _controls(section)
    yield _spending(section)
    if section.escapes:
        yield _escapes(section)
    for family, comparisons in section.families.items():
        yield _comparison_block(family, comparisons, turns)


def _overall(overall: Overall) -> Block:
    header = ("Method", "Acc@t1", "Acc at the last attempt", "Δ", "seeds")
    rows = tuple(
        (Cell(name), *(_percent(cells.get(q), signed=q == "delta") for q in ("t1", "last", "delta")),
         _seed_count(seeds))
        for name, seeds, cells in overall.rows
    )  # fmt: skip
    lead = (
        "Interquartile mean over seeds and tasks, with stratified bootstrap intervals over seeds (none for one seed). "
    )
    lead += f"Tasks: {', '.join(overall.tasks)}."
    title = f"All evaluation tasks; trained on {overall.train_task}; model {overall.model}"
    title += f"; {overall.turns} attempts" if overall.turns != 2 else ""
    alone = any(math.isnan(interval.lo) for _, _, cells in overall.rows for interval in cells.values())
    notes = (
        ("No interval: with one seed, or seeds that do not differ, resampling seeds says nothing.",) if alone else ()
    )
    return Block(title, 2, lead, header, rows, notes, name="overall")


def _across_bases(crossed: AcrossBases) -> Block:
    turns, base = crossed.subject.turns, next((r.name for r in crossed.rows if r.name.startswith(BASE)), "")
    columns = {"t1": "Acc@t1", "last": f"Acc@t{turns}", "delta": f"Δ(t1,t{turns})", "gain": f"Acc@t{turns} − {base}'s"}
    shown = [q for q in columns if any(q in row.cells for row in crossed.rows)]
    header = ("Method", *(columns[q] for q in shown), *(("p", "p (Holm)") if "gain" in shown else ()), "seeds of each")
    rows = tuple(
        (Cell(row.name), *(_percent(row.cells.get(q), signed=q in ("delta", "gain")) for q in shown),
         *((_p(row.p), _p(row.p_holm)) if "gain" in shown else ()), Cell(str(row.seeds), sort=row.seeds))
        for row in crossed.rows
    )  # fmt: skip
    lead = f"{len(crossed.models)} base models: {', '.join(crossed.models)}. {crossed.problems} problems; percent, in "
    lead += "brackets 95 % intervals over bases, seeds within a base, and problems: they speak of bases like these, "
    lead += "where the tables above speak of one base each."
    notes = (
        ["Two bases are too few: such intervals cover 88 % where they say 95 %."] if len(crossed.models) == 2 else []
    )
    notes += [f"Not on every base: {', '.join(crossed.missing)}."] if crossed.missing else []
    title = f"Several base models; {title_of(crossed.subject).replace('; model ', '', 1)}"
    return Block(title, 2, lead, header, rows, tuple(notes), name="bases")


def _behaviour(section: Section) -> Block:
    turns = section.subject.turns
    ends = [0] if turns == 1 else [0, turns - 1]
    header = ["Method"]
    columns = _of_place("behaviour", turns)
    header += [metric.column_heading(turns) for metric in columns]
    header += [status.replace("_", " ") for status in FAILURES]
    rows = []
    for row in section.rows:
        cells = [Cell(row.name)]
        cells += [_metric_cell(row, metric.name) for metric in columns]
        cells += [Cell("/".join(_number(row.rates[s][i]) for i in ends), sort=row.rates[s][-1]) for s in FAILURES]
        rows.append((*cells, _tokens(row.rates.get("tokens_per_problem"))))
    lead = " ".join(filter(None, ("Percent.", *(metric.about for metric in columns))))
    lead += " No answer, truncated, timeout, error: at "
    lead += f"{' / '.join(f't{i + 1}' for i in ends)}. Tokens: written per problem, all attempts."
    header = (*header, "tokens")
    return Block("Behaviour", 3, lead, header, tuple(rows), split=6 if turns > 1 else None, name="behaviour")


def _controls(section: Section) -> Block:
    header = ("Method", *CONTROLS.values(), "no right / wrong draft", "problems", "seeds")
    notes = list(dict.fromkeys(note for row in section.controls for note in row.notes))
    marks = {note: f" ({i + 1})" for i, note in enumerate(notes)}
    rows = tuple(
        (Cell(row.name + "".join(marks[note] for note in row.notes)),
         *(_percent(row.cells.get(q), signed=q in GAINS) for q in CONTROLS),
         Cell(" / ".join(f"{row.left_out[d]:.0f}" if d in row.left_out else NONE for d in ("right", "wrong"))),
         Cell(str(row.problems), sort=row.problems), _seed_count(row.seeds))
        for row in section.controls
    )  # fmt: skip
    lead = "Attempt 2 after other drafts than the row's own, greedy, paired by problem; percent. t2 after own: all "
    lead += (
        "problems; after a right, a wrong, another problem's draft, the base model's; after the own one told in the "
    )
    lead += "user's turn (relabelled); asked again without a draft (blind). Reliance: of the problems where the own "
    lead += "draft and another problem's give different answers, the share on which attempt 2's answer changes with "
    lead += "them. Gain over blind: t2 minus blind; gain over other: t2 minus t2 after another problem's; role gap: t2 "
    lead += "minus relabelled; each on the same problems."
    notes = [f"({i + 1}) {note}." for i, note in enumerate(notes)]
    return Block("Controls", 3, lead, header, rows, tuple(notes), split=8, name="controls")


def _spending(section: Section) -> Block:
    header = ("Method", "responses", *SPENDING.values(), "test tokens per problem", "seeds")
    rates = {row.name: row.rates for row in section.rows}
    rows, notes = [], []
    for row in section.spending:
        marks = _budget_notes(row)
        notes += [note for note in marks if note not in notes]
        name = row.name + "".join(f" ({notes.index(note) + 1})" for note in marks)
        counts = [_amount(row.means.get(key)) for key in ("responses", *SPENDING)]
        rows.append((Cell(name), *counts, _tokens(rates[row.name].get("tokens_per_problem")), _seed_count(row.seeds)))
    lead = (
        "What the training of one seed spent, mean over seeds; docs/budgets.md says what each column counts. Read: "
        "prompts, instructions and given replies. Trained: tokens with a weight or a KL coefficient, in every update "
        "that fits them. FLOPs: 2 for each parameter outside the embeddings and token forward, 6 forward and backward."
    )
    numbered = tuple(f"({i + 1}) {note}." for i, note in enumerate(notes))
    return Block("Budget", 3, lead, header, tuple(rows), numbered, name="budget")


def _escapes(section: Section) -> Block:
    rows = tuple(
        (Cell(row.name), Cell(f"{sum(time.escaped for time in row.times)} of {len(row.times)}"),
         _time(row.median[0], row.median[1:]),
         Cell(", ".join(f"{'' if time.escaped else '>'}{time.at:g}" for time in row.times)))
        for row in section.escapes
    )  # fmt: skip
    lead = (
        "Updates until an evaluation in mid-training, confirmed by the next one, has a delta of at least "
        f"{points_text(LEAST)} points with its 95 % interval above 0. Median: Kaplan and Meier's, with 95 % bounds; a "
        "seed that has not escaped (>) is censored at its last evaluation."
    )
    header = ("Method", "seeds that escaped", "median", "each seed")
    return Block("Time to escape", 3, lead, header, rows, name="escape")


def _time(at: float, bounds: Sequence[float]) -> Cell:
    def told(value: float) -> str:
        return "not reached" if math.isinf(value) else f"{value:g}"

    return Cell(told(at), f"[{', '.join(map(told, bounds))}]", at if math.isfinite(at) else sys.float_info.max)


def _budget_notes(row: Spending) -> list[str]:
    notes = ["sampled tokens are derived from metrics.jsonl: the run is older than their count"] if row.derived else []
    notes += [f"training was to end by {limit}" for limit in row.limits]
    notes += [f"its updates ended before that was spent (seed {', '.join(map(str, row.short))})"] if row.short else []
    return notes


def _comparison_block(family: str, comparisons: Sequence[Comparison], turns: int) -> Block:
    points = points_text(comparisons[0].margin)
    several = any(c.seeds_for_margin for c in comparisons)
    header = ("Comparison", "difference", "p", "p (Holm)", "smallest shown", f"p (same within {points})")
    header += (f"within {points}?", *([f"seeds for {_points(points)}"] if several else []), "seeds")
    rows = tuple(
        (Cell(f"{c.row} − {c.other}"), _percent(c.difference, signed=True), _p(c.p), _p(c.p_holm),
         Cell(_number(c.smallest), sort=c.smallest), _p(c.same.p), _within(c.same),
         *([_count(c.seeds_for_margin or NONE)] if several else []), _seed_count(c.seeds))
        for c in comparisons
    )  # fmt: skip
    other = "Acc@t1" if family.endswith("first attempt") else f"Acc@t{turns}"
    lead = f"Acc@t{turns} of the one minus {other} of the other, in points, paired by problem. Smallest shown: the "
    lead += "difference that these data would show four times in five. "
    lead += f"p (same within {points}): of 'the difference is {_points(points)} or more', not corrected by Holm; "
    lead += f"within {points}?: whether the 90 % interval, in brackets, lies within {_points(points)} to either side."
    if several:
        lead += f" Seeds for {_points(points)}: with which a difference of {_points(points)} would be shown four times "
        lead += "in five, a plan from the runs in hand."
    alone = [c for c in comparisons if c.trained and len(c.seeds) == 1]
    notes = (
        ("With 1 seed a difference, its p values and what could be shown cannot speak of training noise.",)
        if alone
        else ()
    )
    return Block(f"Comparison {family}", 3, lead, header, rows, notes, split=5, name="comparison")


def points_text(share: float) -> str:
    """A share in points, without needless zeros."""
    return f"{100 * share:.6g}"


def _points(number: str) -> str:
    return f"{number} point" if number == "1" else f"{number} points"


def _within(same: Equivalence) -> Cell:
    """Yes or no, with the interval that decides it; sorted by the answer."""
    interval = _percent(same.interval, signed=True)
    return Cell("yes" if same.within else "no", interval.bracket, float(same.within))


def title_of(subject: ComparisonKey) -> str:
    """A table's heading: everything its rows have in common."""
    train = f"{subject.train_task} (version {subject.train_version})"
    task = f"{subject.task} (version {subject.version or 'not told'})"
    title = f"{task}, trained on {train}" if train != task else task
    title += f"; model {subject.model}"
    title += f"; graded by {subject.grader}" if subject.grader else ""
    title += {"given": "; first attempts given", "reference": "; first attempts the base model's"}.get(
        subject.first, ""
    )
    return title + (f"; {subject.turns} attempts" if subject.turns != 2 else "")


def _short(difference: str, most: int = 3) -> str:
    """The parent and its first few bindings; CSV and JSON have them all."""
    parts = difference.split(", ")
    return ", ".join(parts[:most]) + (f", and {len(parts) - most} more" if len(parts) > most else "")


def _of_place(place: str, turns: int) -> list[Metric]:
    """The metrics whose columns are in a table of so many attempts."""
    return [metric for metric in METRICS.values() if metric.place == place and metric.attempts <= turns]


def _heading(quantity: str, turns: int) -> str:
    if quantity in METRICS:
        return METRICS[quantity].column_heading(turns)
    return "MBPP-R" if quantity == "mbpp_r" else f"Acc@{quantity}"


def _metric_cell(row: Row, quantity: str) -> Cell:
    """A metric, or the accuracy of an attempt, of one row."""
    metric = METRICS.get(quantity)
    if metric is None:
        return _percent(row.cells.get(quantity))
    if metric.interval is None:
        return _plain(row.rates.get(quantity))
    if metric.interval == "number":
        return _figure(row.cells.get(quantity))
    return _percent(row.cells.get(quantity), signed=metric.signed)


def _paper_cells(table: Any, numbers: Sequence[float]) -> Iterator[Cell]:
    n = table["n"]
    for quantity, printed in zip(table["columns"], numbers, strict=True):
        if quantity in ("delta", "mbpp_r"):
            yield Cell(_signed(printed / 100) if quantity == "delta" else f"{printed:.1f}", sort=printed)
        else:
            interval = stats.wilson_interval(round(printed * n / 100), n)
            yield Cell(f"{printed:.1f}", f"[{_number(interval.lo)}, {_number(interval.hi)}]", printed)


def _numbered(notes: dict[str, int]) -> Iterator[str]:
    return (f"({number}) {note}." for note, number in notes.items())


def _number(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}"


def _signed(share: float) -> str:
    points = round(100 * share, 1) + 0.0
    return f"{points:+.1f}" if points else "0.0"


def _percent(interval: Interval | None, *, signed: bool = False) -> Cell:
    if interval is None:
        return Cell(NONE)
    show = _signed if signed else _number
    bracket = "" if math.isnan(interval.lo) else f"[{show(interval.lo)}, {show(interval.hi)}]"
    return Cell(show(interval.mean), bracket, interval.mean)


def _figure(interval: Interval | None) -> Cell:
    if interval is None:
        return Cell(NONE)
    return Cell(f"{interval.mean:.3g}", f"[{interval.lo:.3g}, {interval.hi:.3g}]", interval.mean)


def _plain(share: float | None) -> Cell:
    return Cell(NONE) if share is None else Cell(_number(share), sort=share)


def _tokens(count: float | None) -> Cell:
    return Cell(NONE) if count is None else Cell(f"{count:.1f}", sort=count)


def _count(text: str) -> Cell:
    return Cell(text, sort=float(text) if text.isdecimal() else None)


def _amount(count: float | None) -> Cell:
    """A count over seeds: whole below ten million, else three digits."""
    if count is None:
        return Cell(NONE)
    return Cell(f"{count:.0f}" if count < 1e7 else f"{count:.2e}".replace("e+", "e"), sort=count)


def _seed_count(seeds: Sequence[int]) -> Cell:
    return Cell(str(len(set(seeds))), sort=len(set(seeds)))


def _p(p: float | None) -> Cell:
    return Cell(NONE) if p is None else Cell(p_text(p), sort=p)


def p_text(p: float) -> str:
    """A p value as every table shows it."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


# -- Markdown ----------------------------------------------------------------------------------------------------------


def escape_html(text: str) -> str:
    """Text that renders as itself in an HTML element or quoted attribute."""
    return html.escape(_one_line(text))


def escape_markdown(text: str) -> str:
    """Text that renders as itself in a Markdown table cell: no markup, no HTML, no new cell or line."""
    text = html.escape(_one_line(text), quote=False)
    text = re.sub(r"([\\`|*\[\]~#])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def render_markdown(board: Board) -> str:
    """GitHub-flavoured Markdown."""
    parts = []
    for block in build_blocks(board):
        parts.append(f"{'#' * block.level} {escape_markdown(block.title)}\n")
        if block.lead:
            parts.append(f"{escape_markdown(block.lead)}\n")
        if block.header:
            rules = ["---" if i in _wordy(block) else "--:" for i in range(len(block.header))]
            lines = [" | ".join(map(escape_markdown, block.header)), " | ".join(rules)]
            lines += [" | ".join(f"{escape_markdown(c.text)} {c.bracket}".strip() for c in row) for row in block.rows]
            parts.append("".join(f"| {line} |\n" for line in lines))
        parts += [f"- {escape_markdown(note)}\n" for note in block.notes[:-1]]
        parts += [f"- {escape_markdown(note)}\n" for note in block.notes[-1:]]
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    text = ""
    for part in parts:
        tight = part.startswith("- ") and text.rpartition("\n\n")[2].startswith("- ")
        text += part if tight or not text else "\n" + part
    return text


# -- HTML --------------------------------------------------------------------------------------------------------------


def render_html_fragment(board: Board, deeper: int = 0) -> str:
    """The tables as HTML without a page around them, headings `deeper` by so many levels; the report shows the same."""
    parts = []
    for block in build_blocks(board):
        level = block.level + deeper
        parts.append(f"<h{level}>{escape_html(block.title)}</h{level}>")
        if block.lead:
            parts.append(f'<p class="lead">{escape_html(block.lead)}</p>')
        if block.header:
            words = _wordy(block)
            kinds = [' class="text"' if i in words else "" for i in range(len(block.header))]
            head = "".join(
                f'<th scope="col"{k}>{escape_html(n)}</th>' for k, n in zip(kinds, block.header, strict=True)
            )
            parts.append(f'<div class="scroll"><table class="board {block.name}"><thead><tr>{head}</tr></thead><tbody>')
            for row in block.rows:
                first = f'<th scope="row">{escape_html(row[0].text)}</th>'
                parts.append(f"<tr>{first}{''.join(map(_html_cell, row[1:]))}</tr>")
            parts.append("</tbody></table></div>")
        if block.notes:
            parts.append(f"<ul class=notes>{''.join(f'<li>{escape_html(note)}</li>' for note in block.notes)}</ul>")
    return "\n".join(parts) + "\n"


def _html_cell(cell: Cell) -> str:
    sort = "" if cell.sort is None else f' data-sort="{cell.sort:.9g}"'
    text = escape_html(cell.text)
    if cell.sort is not None:
        text = text.replace("-", "−")  # a real minus
    bracket = f" <small>{escape_html(cell.bracket).replace('-', '−')}</small>" if cell.bracket else ""
    kind = "" if cell.sort is not None or cell.text == NONE else ' class="text"'
    return f"<td{sort}{kind}>{text}{bracket}</td>"


STYLE = """\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap}th:first-child,td.text{text-align:left}
thead th{border-bottom:1px solid}small{opacity:.7}
"""


def render_html_page(board: Board) -> str:
    """A self-contained HTML page of the tables alone."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{TITLE}</title>'
    head = f"<head>{head}\n<style>\n{STYLE}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}<body>\n{render_html_fragment(board)}</body></html>\n'


# -- LaTeX -------------------------------------------------------------------------------------------------------------

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_\allowbreak{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "Δ": r"$\Delta$", "→": r"$\to$", "−": r"$-$", "–": "--",
    "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that typesets as itself under pdflatex (T1 and textcomp); what ASCII cannot say becomes '?'."""
    out = []
    for char in _one_line(text):
        plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
        out.append(LATEX.get(char) or "".join(LATEX.get(c, c) for c in plain) or "?")
    return "".join(out)


def render_latex(board: Board) -> str:
    r"""Tables for a paper, to be \input; they need booktabs and textcomp, nothing else."""
    parts = [r"% needs \usepackage[T1]{fontenc}, \usepackage{booktabs}, \usepackage{textcomp}"]
    for block in build_blocks(board):
        if not block.header:
            parts.append(f"% {_one_line(block.title)}")
            continue
        cut = block.split or len(block.header)
        for low, high in ((1, cut), (cut, len(block.header))):
            if low < high:
                parts.append(_latex_table(block, [0, *range(low, high)], last=high == len(block.header)))
    return "\n".join(parts) + "\n"


def _latex_table(block: Block, columns: Sequence[int], *, last: bool) -> str:
    wordy = {i for i in columns if i in _wordy(block)}
    widths = {i: "p{0.2\\textwidth}" if i == 0 else "p{0.23\\textwidth}" for i in wordy}
    narrow = len(wordy) > 1 or len(columns) > 6
    kinds = {i: widths[i] if i in wordy and narrow else "l" if i == 0 else "r" for i in columns}
    if block.name == "troubles":
        kinds = dict(zip(columns, ("p{0.4\\textwidth}", "p{0.4\\textwidth}", "p{0.1\\textwidth}"), strict=True))

    def line(cells: Iterable[tuple[int, str]], gap: str = "") -> str:
        ragged = ((r"\raggedright " if kinds[i].startswith("p") and text else "") + text for i, text in cells)
        return " & ".join(ragged) + rf" \tabularnewline{gap}"

    caption = f"{block.title}. {block.lead}" if block.lead else f"{block.title}."
    lines = [r"\begin{table}[htbp]", r"\centering\scriptsize\setlength{\tabcolsep}{3.5pt}"]
    lines += [
        rf"\caption{{{escape_latex(caption)}}}\smallskip",
        rf"\begin{{tabular}}{{@{{}}{''.join(kinds.values())}@{{}}}}",
    ]
    lines += [r"\toprule", line((i, escape_latex(block.header[i])) for i in columns), r"\midrule"]
    for row in block.rows:
        lines.append(line((i, _latex_cell(row[i])) for i in columns))
        if any(row[i].bracket for i in columns):  # intervals under their numbers: a column of text stays narrow
            brackets = ((i, escape_latex(row[i].bracket.replace("-", "−"))) for i in columns)
            lines.append(line(((i, rf"\tiny {text}" if text else "") for i, text in brackets), gap="[1pt]"))
    lines += [r"\bottomrule", r"\end{tabular}"]
    if last and block.notes:
        lines += [r"\par\smallskip\raggedright", r"\\ ".join(escape_latex(note) for note in block.notes)]
    return "\n".join([*lines, r"\end{table}"])


def _wordy(block: Block) -> list[int]:
    """The columns that hold words: the first, and those with a long text and no number."""
    columns = range(1, len(block.header))
    texts = [i for i in columns if all(r[i].sort is None for r in block.rows)]
    return [0, *(i for i in texts if max((len(r[i].text) for r in block.rows), default=0) > 12)]


def _latex_cell(cell: Cell) -> str:
    return escape_latex(cell.text.replace("-", "−") if cell.sort is not None else cell.text)


# -- CSV and JSON ------------------------------------------------------------------------------------------------------


def as_csv(board: Board) -> str:
    """One line per row, comparison, reference row and left-out run; shares are fractions, six decimals."""
    found = [metric for metric in METRICS.values() if metric.interval]
    rates, means = [m.name for m in found if m.given], [m.name for m in found if not m.given]
    quantities = ["t1", "t2", "last", *means, *rates, "majority_2", *CONTROLS]
    columns = ["kind", *ComparisonKey._fields, "problems", "method", "other", "seeds"]
    columns += [f"{q}{end}" for q in quantities for end in ("", "_lo", "_hi")]
    columns += ["difference_of_last", "difference_lo", "difference_hi", "p", "p_holm", "smallest_shown"]
    columns += ["margin", "p_same", "same_lo", "same_hi", "within_margin", "seeds_for_margin"]
    columns += [
        *(metric.name for metric in METRICS.values() if not metric.interval),
        "tokens_per_problem",
        "responses",
        "updates",
        "parent",
        "binding_difference",
        "note",
    ]
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, columns, lineterminator="\n", restval="")
    writer.writeheader()
    for line in _flat(board):
        writer.writerow({key: _csv_value(value) for key, value in line.items() if key in columns})
    return sheet.getvalue()


def _flat(board: Board) -> Iterator[dict[str, Any]]:
    for section in board.sections:
        about = {**section.subject._asdict(), "problems": section.problems}
        for row in section.rows:
            yield {
                "kind": "row", **about, **row.rates, **_ends(row.cells), "method": row.name, "seeds": _seeds(row.seeds),
                "p": row.p, **row.budget, "parent": row.parent, "binding_difference": row.difference,
                "note": "; ".join(row.notes),
            }  # fmt: skip
        for c in section.controls:
            yield {
                "kind": "controls", **about, **_ends(c.cells), "problems": c.problems, "method": c.name,
                "seeds": _seeds(c.seeds), "note": "; ".join(c.notes),
            }  # fmt: skip
        for spent in section.spending:
            yield {
                "kind": "budget", **about, **spent.means, "method": spent.name, "seeds": _seeds(spent.seeds),
                "note": "; ".join(_budget_notes(spent)),
            }  # fmt: skip
        for row in section.escapes:
            median = zip(("median_time", "median_time_lo", "median_time_hi"), row.median, strict=True)
            for time in row.times:
                yield {
                    "kind": "escape", **about, "method": row.name, "seeds": str(time.seed), "time": time.at,
                    "escaped": "yes" if time.escaped else "no",
                    **{key: value for key, value in median if math.isfinite(value)},
                }  # fmt: skip
        for beside in section.beside:
            quantity = "t1" if beside.label.endswith("Acc@t1") else "majority_2"
            cells = _ends({quantity: beside.cell} if beside.cell else {})
            yield {"kind": "beside", **about, **cells, "method": beside.label, "note": beside.note}
        for family, comparisons in section.families.items():
            for c in comparisons:
                ends = zip(("difference_of_last", "difference_lo", "difference_hi"), c.difference, strict=True)
                yield {
                    "kind": "comparison", **about, **dict(ends), "method": c.row, "other": c.other, "p": c.p,
                    "p_holm": c.p_holm, "smallest_shown": c.smallest, "seeds": _seeds(c.seeds), "note": family,
                    "margin": c.margin, "p_same": c.same.p, "same_lo": c.same.interval.lo,
                    "same_hi": c.same.interval.hi, "within_margin": "yes" if c.same.within else "no",
                    "seeds_for_margin": c.seeds_for_margin,
                }  # fmt: skip
    for crossed in board.bases:
        about = {**crossed.subject._asdict(), "model": "; ".join(crossed.models), "problems": crossed.problems}
        for r in crossed.rows:
            ends = zip(("difference_of_last", "difference_lo", "difference_hi"), r.cells.get("gain", ()), strict=False)
            yield {
                "kind": "bases", **about, **_ends(r.cells), **dict(ends), "method": r.name, "p": r.p,
                "p_holm": r.p_holm, "note": f"{r.seeds} seeds of each base",
            }  # fmt: skip
    for table in board.paper["tables"]:
        for name, *printed in table["rows"]:
            numbers = {q: x / 100 for q, x in zip(table["columns"], printed, strict=True)}
            yield {"kind": "paper", "problems": table["n"], **numbers, "method": name, "note": table["title"]}
    for trouble in board.troubles:
        yield {"kind": "left out" if trouble.left_out else "remark", "method": trouble.path, "note": trouble.message}


def _ends(cells: Mapping[str, Interval]) -> dict[str, float]:
    """Intervals as three columns each."""
    return {f"{q}{end}": x for q, i in cells.items() for end, x in zip(("", "_lo", "_hi"), i, strict=True)}


def _seeds(seeds: Sequence[int]) -> str:
    return " ".join(map(str, seeds))


def _csv_value(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, str):
        text = _one_line(value)
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text  # no spreadsheet formulas from run folders
    return "" if value is None or isinstance(value, list) else value


def as_json(board: Board) -> str:
    """The board as data; shares are fractions, six decimals."""
    whole = dict.fromkeys(("tables", "overall", "bases", "paper", "troubles")) | _data(board)
    whole["tables"] = whole.pop("sections")
    for section in whole["tables"]:
        section["comparisons"], section["budget"] = section.pop("families"), section.pop("spending")
    for overall in whole["overall"]:
        overall["rows"] = [dict(zip(("name", "seeds", "cells"), row, strict=True)) for row in overall["rows"]]
    return plain_json(whole)


def plain_json(value: Any) -> str:
    """JSON that is safe anywhere: ASCII alone (no control, nothing that turns the writing direction), no NaN."""
    return json.dumps(_data(value), indent=1, allow_nan=False) + "\n"


def _data(value: Any) -> Any:
    """A value as JSON has it: dataclasses without the fields that their repr leaves out, numbers to six decimals."""
    if isinstance(value, float):
        return round(value, 6) + 0.0 if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
    if as_dict := getattr(value, "_asdict", None):  # a NamedTuple
        value = as_dict()
    if isinstance(value, dict):
        return {key: _data(entry) for key, entry in value.items()}
    return [_data(entry) for entry in value] if isinstance(value, list | tuple) else value


def _one_line(text: str) -> str:
    """Control characters and line ends as spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def write_output(text: str, out: Path | None = None) -> None:
    """Writes a text to a file, as UTF-8, or to the screen: what the screen's encoding lacks, as an escape.

    Raises:
        OSError: the file cannot be written.
    """
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", newline="\n")
    else:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


FORMATS: dict[str, Callable[[Board], str]] = {
    "md": render_markdown,
    "csv": as_csv,
    "latex": render_latex,
    "html": render_html_page,
    "json": as_json,
}
