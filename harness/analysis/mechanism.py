"""What finished runs say about *how* their rows learn: `python -m harness.mechanism results/embedded`.

Two tables, from metrics.jsonl and eval.jsonl alone. *Updates*: how often the gradient was clipped. A clipped gradient
has a fixed length, whatever the scale of the rewards, so a factor such as 1 + alpha acts as a ratio only. *Swapped
first attempts*: how often attempt 2 is the same text, byte for byte, after the row's own first attempt and after the
base model's, where these two differ. Such a second attempt does not use what it has read.

Not covered: in the second table, rows without an evaluation of fixed first attempts (gin/eval/every_evaluation.gin).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from harness.runs import reader
from harness.runs.reader import Run

HEAD = """# How the rows learn

Made by `python -m harness.mechanism {folder}`, from metrics.jsonl and eval.jsonl.
"""
UPDATES = """
## Updates

Over all seeds. Clipped: updates whose gradient norm was above `hf.max_grad_norm`. Median norm: before clipping.
Examples: fitted in one update, mean; an RL row fits every attempt it samples. Updates that found nothing to fit are in
no column but the first.

| row | phase | updates | clipped, percent | median norm | examples |
| --- | --- | --: | --: | --: | --: |
"""
SWAPPED = """
## Swapped first attempts

Greedy second attempts to the same problems, once after the row's own first attempt and once after the base model's.
Cases: problems, over all seeds, on which the two first attempts give different answers. Same text: attempt 2 is
identical, byte for byte; same answer: its answer is.

| row | cases | same text, percent | by seed | same answer, percent |
| --- | --: | --: | --: | --: |
"""


MADE_OF = """
## What an update is made of

From the updates that were looked at (`run.gradient_probe_every`), means over them and all seeds. The gradient is the
sum of its parts: the reward of an attempt (with a method that imitates: its likelihood) and its KL term. Share: the
part's projection on the whole gradient, over the latter's length, in percent; shares sum to 100, and a negative one
pulls against the others. Norm: the part's own length, before clipping. Cosine: of this part with the reward's part of
the last attempt.

| row | phase | looks | clipped, percent | part | share | norm | cosine |
| --- | --- | --: | --: | --- | --: | --: | --: |
"""
SHARE = "gradient_share_"


def made_of(runs: Iterable[Run]) -> list[tuple[str, str, int, float, dict[str, tuple[float, float, float | None]]]]:
    """(row, phase, looks, share clipped, {part: (share, norm, cosine)}) of each phase that was looked at.

    A part that is missing in a look had no gradient there: its share and norm count as 0. Cosines are over the looks
    that have both parts; None where none has.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        for line in run.read_steps():
            if line.get("gradient_norm") is not None:
                found[run.name, line["phase"]].append(line)
    rows = []
    for (row, phase), lines in found.items():
        parts = sorted({key.removeprefix(SHARE) for line in lines for key in line if key.startswith(SHARE)})
        last = max((part for part in parts if part.startswith("reward")), default="")
        told: dict[str, tuple[float, float, float | None]] = {}
        for part in parts:
            share, norm = (
                fmean(line.get(f"gradient_{what}_{part}") or 0.0 for line in lines) for what in ("share", "norm")
            )
            pairs = (f"gradient_cosine_{part}_{last}", f"gradient_cosine_{last}_{part}")
            cosines = [line[key] for line in lines for key in pairs if line.get(key) is not None]
            told[part] = share, norm, fmean(cosines) if cosines else None
        rows.append((row, phase, len(lines), fmean(line["gradient_clipped"] for line in lines), told))
    return rows


def _made_of_table(runs: Sequence[Run]) -> str:
    """The table; '' where no run was looked at."""
    text = ""
    for row, phase, looks, clipped, parts in made_of(runs):
        for part, (share, norm, cosine) in parts.items():
            told = "–" if cosine is None else f"{cosine:.2f}"
            text += f"| {row} | {phase} | {looks} | {_percent(clipped)} | {part.replace('_', ' ')} "
            text += f"| {100 * share:.1f} | {norm:.3g} | {told} |\n"
    return MADE_OF + text if text else ""


def summarize_updates(runs: Iterable[Run]) -> list[tuple[str, str, int, float, float, float]]:
    """(row, phase, updates, share clipped, median norm, mean examples) of every phase, over all seeds."""
    found: dict[tuple[str, str], list[tuple[Mapping[str, Any], float]]] = defaultdict(list)
    for run in runs:
        bound = float(run.bindings.get("hf.max_grad_norm", "inf"))
        for line in run.read_steps():
            found[run.name, line["phase"]].append((line, bound))
    rows = []
    for (row, phase), lines in found.items():
        fitted = [
            (line["grad_norm"], bound, line["examples"])
            for line, bound in lines
            if {"grad_norm", "examples"} <= line.keys()
        ]
        if fitted:
            clipped = fmean(norm > bound for norm, bound, _ in fitted)
            rows.append((row, phase, len(lines), clipped, median(f[0] for f in fitted), fmean(f[2] for f in fitted)))
    return rows


def swapped_drafts(runs: Iterable[Run]) -> dict[str, list[tuple[int, int, int]]]:
    """{row: one (cases, same text, same answer) for each seed} where attempt 1 was replaced by the base model's."""
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for run in runs:
        if not run.was_trained:
            continue  # the base model's own first attempts are its own
        pairs: dict[tuple[str, str, int], dict[str, Sequence[Mapping[str, Any]]]] = defaultdict(dict)
        for record in reader.read_records(run.path, whens=("after",)):
            attempts = record["attempts"]
            plain = record["temperature"] == 0 and "draft" not in record
            if plain and len(attempts) == 2 and record.get("split", "test") == "test":
                pairs[record["task"], record["id"], record["sample"]][attempts[0]["by"]] = attempts
        whole = [pair for pair in pairs.values() if {"policy", "reference"} <= pair.keys()]
        both = [(pair["policy"], pair["reference"]) for pair in whole]
        other = [(own[1], fixed[1]) for own, fixed in both if own[0]["answer"] != fixed[0]["answer"]]
        if both:
            texts, answers = (sum(a[key] == b[key] for a, b in other) for key in ("text", "answer"))
            found[run.name].append((len(other), texts, answers))
    return dict(found)


def render_markdown(runs: Sequence[Run], folder: str) -> str:
    """Both tables."""
    text = HEAD.format(folder=folder) + UPDATES
    for row, phase, count, clipped, norm, examples in summarize_updates(runs):
        text += f"| {row} | {phase} | {count} | {_percent(clipped)} | {norm:.1f} | {examples:.1f} |\n"
    text += _made_of_table(runs) + SWAPPED
    for row, seeds in swapped_drafts(runs).items():
        cases, texts, answers = (sum(column) for column in zip(*seeds, strict=True))
        by_seed = ", ".join(f"{100 * same / count:.0f}" if count else "–" for count, same, _ in seeds)
        text_share, answer_share = (f"{100 * same / cases:.0f}" if cases else "–" for same in (texts, answers))
        text += f"| {row} | {cases} | {text_share} | {by_seed} | {answer_share} |\n"
    return text


def _percent(share: float) -> str:
    """One decimal, and 100 for all of them alone."""
    return "100" if share == 1 else f"{min(99.9, 100 * share):.1f}"
