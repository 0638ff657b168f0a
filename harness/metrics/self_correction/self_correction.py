"""Self-correction metrics as an `evaluate.Metric`: `evaluate.load('harness/metrics/self_correction')`.

An adapter of `harness.metrics` for code that uses `evaluate`; the harness itself never comes through here, and this is
the only file that imports `evaluate`. That library scans imports line by line: one import per line.
"""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate

from harness.metrics import summarize
from harness.metrics.stats import mcnemar_test

DESCRIPTION = """\
Accuracy at each attempt, delta, flips in both directions, fix and break rate, answer-change rate, edit-distance ratio
and unchanged-copy rate of models that answer the same problem several times; exact McNemar p of first against last.
"""
INPUTS = """\
Args:
    predictions: one list per problem: the texts of its attempts, first to last; the same number for every problem.
    references: one string per problem.
    grader: a function (text, reference) -> correct, or -> (correct, answer) with answer None where the text gives none.
        Default: the text equals the reference, surrounding space aside, and is its own answer.
Returns:
    The dict of `harness.metrics.summarize`, and `mcnemar_p`. What texts cannot tell (tokens, truncation) is left out.
"""
CITATION = """\
@inproceedings{kumar2025score,
  title={Training Language Models to Self-Correct via Reinforcement Learning},
  author={Kumar, Aviral and Zhuang, Vincent and Agarwal, Rishabh and Su, Yi and others},
  booktitle={ICLR}, year={2025}, eprint={2409.12917}, archivePrefix={arXiv}
}
"""
UNKNOWN = ("tokens", "tokens_per_problem", "truncated", "timeout", "error", "majority", "majority_last", "pass")

Grader = Callable[[str, str], "bool | tuple[bool, str | None]"]


class SelfCorrection(evaluate.Metric):
    """Acc@t1 ... Acc@tk, delta, i->c, c->i and their kin, from texts and references."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, predictions: Sequence[Sequence[str]], references: Sequence[str], grader: Grader | None = None
    ) -> dict[str, Any]:
        records = []
        for number, (texts, reference) in enumerate(zip(predictions, references, strict=True)):
            attempts = [_attempt(text, reference, grader or _exact) for text in texts]
            records.append({"id": f"{number:09}", "sample": 0, "attempts": attempts})
        summary = summarize(records)
        for key in UNKNOWN:
            del summary[key]
        flips = summary["i_to_c_count"], summary["c_to_i_count"]
        summary["mcnemar_p"] = mcnemar_test(*flips) if None not in flips else None
        return summary


def _exact(text: str, reference: str) -> tuple[bool, str | None]:
    answer = text.strip()
    return answer == reference.strip(), answer or None


def _attempt(text: str, reference: str, grader: Grader) -> dict[str, Any]:
    verdict = grader(text, reference)
    correct, answer = verdict if isinstance(verdict, tuple) else (verdict, text.strip() or None)
    return {"text": text, "correct": bool(correct), "answer": answer, "status": "ok" if answer else "no_answer"}
