"""Optional evaluations, kind `evaluation` in gin, added to the greedy two-attempt evaluation of the test split.

`run.evaluations = [@evaluation.pool(), @evaluation.attempts()]` adds to a run's evaluation at its end;
`python -m harness.evaluate RUN_FOLDER` adds to a run that is done. Each asks once, after training (of an untrained row:
before, the only time there is). None changes a byte of the greedy evaluation's records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness.core import Problem, Task
from harness.registry import register
from harness.runs.schema import DRAFTS, Asked, key_of

Split = Literal["test", "validation", "train"]
Draft = Literal["own", "reference", "right", "wrong", "other", "blind", "relabelled"]
ROWS = 256  # trajectories decoded together
TOLD: Mapping[Draft, str] = {
    "reference": "after the base model's first attempts",
    "right": "after right drafts",
    "wrong": "after wrong drafts",
    "other": "after drafts of another problem",
    "blind": "asked again without a draft",
    "relabelled": "after own drafts told as somebody else's",
}


@dataclass(frozen=True)
class EvalSpec:
    """One evaluation: of what, and how it is asked. Records of different ones are never averaged together.

    Attributes:
        split: Part of the task.
        attempts: Attempts of one trajectory.
        samples: Trajectories of each problem.
        temperature: 0.0 is greedy.
        problems: At most this many of the split, evenly spaced, so the same for every run; None takes all.
        draft: What attempt 2 reads as attempt 1. `own`: the policy's attempt, or the given one of a repair task;
            `reference`: the base model's. The others are *controls*, whose records name them: a `right` draft; a
            `wrong` one; the policy's attempt at an `other` problem; none at all (`blind`); the policy's own, told in
            the user's turn as somebody else's (`relabelled`). All but `own` are context only. See
            `harness.training.drafts`.
        draws: Most attempts sampled to find a right or a wrong draft.
    """

    split: Split = "test"
    attempts: int = 2
    samples: int = 1
    temperature: float = 0.0
    problems: int | None = None
    draft: Draft = "own"
    draws: int = 8

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise ValueError(f"an evaluation's split is one of {', '.join(get_args(Split))}, not {self.split!r}")
        if (
            self.attempts < 1
            or self.samples < 1
            or self.draws < 1
            or self.temperature < 0
            or not (self.problems is None or self.problems > 0)
        ):
            raise ValueError(
                f"attempts, samples, draws and problems are at least 1 and a temperature at least 0: {self}"
            )
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"{self.samples} samples at temperature 0 are {self.samples} times the same answer")
        if self.draft not in get_args(Draft):
            raise ValueError(f"an evaluation's draft is one of {', '.join(get_args(Draft))}, not {self.draft!r}")
        if self.draft not in ("own", "blind") and self.attempts < 2:
            raise ValueError("with its first attempt fixed, an evaluation of one attempt asks the policy nothing")
        if self.control and (self.attempts != 2 - (self.draft == "blind") or self.temperature):
            raise ValueError(
                f"a control is greedy, and its records hold the draft and one attempt (blind: that alone): {self}"
            )

    @property
    def control(self) -> str:
        """The draft of a control, as its records name it; '' for evaluations that are none."""
        return self.draft if self.draft in DRAFTS else ""

    @property
    def key(self) -> Asked:
        """What tells its records from those of another evaluation of the same task (docs/results_format.md)."""
        return Asked(self.split, float(self.temperature), self.attempts, self.draft)

    @property
    def random_stream(self) -> tuple[str, ...]:
        """Names the random stream; nothing is drawn in greedy decoding, but drafts are."""
        if self.control:
            return ("draft", self.control)
        fixed = self.draft == "reference"
        return tuple(map(str, (*self.key[:3], fixed))) if self.temperature else ()

    @property
    def problems_per_batch(self) -> int:
        """Problems that are asked together."""
        return max(1, ROWS // self.samples)

    def __str__(self) -> str:
        parts = [
            self.split if self.split != "test" else "",
            f"{self.attempts} attempts" if self.attempts != 2 and not self.control else "",
        ]
        parts += [f"{self.samples} samples at {self.temperature:g}" if self.temperature else ""]
        parts += [{"own": "", **TOLD}[self.draft]]
        return ", ".join(filter(None, parts))

    def select_problems(self, task: Task) -> Sequence[Problem]:
        """The problems asked, evenly spaced over the split."""
        every: Sequence[Problem] = getattr(task, self.split)
        count = min(self.problems or len(every), len(every))
        return every if count == len(every) else [every[i * len(every) // count] for i in range(count)]

    def matches_record(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of eval.jsonl belongs to this evaluation (of some task, at some time)."""
        return key_of(record).asked == self.key


@register("evaluation", "pool")
def pool(samples: int = 32, temperature: float = 0.7, problems: int | None = None, split: Split = "test") -> EvalSpec:
    """Sampled two-attempt trajectories: majority@k, pass@k, scaling (arXiv 2409.12917v2, section 6.2: 0.7)."""
    return EvalSpec(split, samples=samples, temperature=temperature, problems=problems)


@register("evaluation", "attempts")
def attempts(count: int = 10, problems: int | None = None) -> EvalSpec:
    """Greedy with more attempts than were trained (arXiv 2409.12917v2, appendix A.1: 10)."""
    return EvalSpec(attempts=count, problems=problems)


@register("evaluation", "validation")
def validation(problems: int | None = 1000) -> EvalSpec:
    """Greedy on the training task's validation problems (arXiv 2409.12917v2, figures 4b and 4c)."""
    return EvalSpec("validation", problems=problems)


@register("evaluation", "train")
def train(problems: int | None = 1000) -> EvalSpec:
    """Greedy on problems that were trained on (arXiv 2409.12917v2, figures 4b and 4c)."""
    return EvalSpec("train", problems=problems)


@register("evaluation", "fixed_first")
def fixed_first(split: Split = "test", problems: int | None = None) -> EvalSpec:
    """Greedy second attempts after the base model's greedy first attempts (arXiv 2409.12917v2, figure 5)."""
    return EvalSpec(split, problems=problems, draft="reference")


@register("evaluation", "right_first")
def right_first(split: Split = "test", problems: int | None = None, draws: int = 8) -> EvalSpec:
    """Control: greedy second attempts after a right draft: a sample of the policy, in repair tasks the solution.

    Args:
        draws: Most attempts sampled until one is right.
    """
    return EvalSpec(split, problems=problems, draft="right", draws=draws)


@register("evaluation", "wrong_first")
def wrong_first(split: Split = "test", problems: int | None = None, draws: int = 8) -> EvalSpec:
    """Control: greedy second attempts after a wrong draft: a sample of the policy, in repair tasks the given one.

    Args:
        draws: Most attempts sampled until one is wrong.
    """
    return EvalSpec(split, problems=problems, draft="wrong", draws=draws)


@register("evaluation", "other_first")
def other_first(split: Split = "test", problems: int | None = None) -> EvalSpec:
    """Control: greedy second attempts after the policy's attempt 1 at another problem; for `reliance`."""
    return EvalSpec(split, problems=problems, draft="other")


@register("evaluation", "blind")
def blind(split: Split = "test", problems: int | None = None) -> EvalSpec:
    """Control: the second prompt without a draft, in the first turn (arXiv 2607.26117); for `gain over blind`."""
    return EvalSpec(split, attempts=1, problems=problems, draft="blind")


@register("evaluation", "relabelled")
def relabelled(split: Split = "test", problems: int | None = None) -> EvalSpec:
    """Control: the policy's own attempt 1 told by the user as somebody else's (arXiv 2606.05976); for `role gap`."""
    return EvalSpec(split, problems=problems, draft="relabelled")
