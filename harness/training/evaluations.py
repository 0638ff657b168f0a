"""What can be asked of a model beside the greedy two-attempt evaluation of the test split: kind `evaluation` in gin.

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

Split = Literal["test", "validation", "train"]
ROWS = 256  # trajectories decoded together


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: of what, and how it is asked. Records of different ones are never averaged together.

    Attributes:
        split: Part of the task.
        attempts: Attempts of one trajectory.
        samples: Trajectories of each problem.
        temperature: 0.0 is greedy.
        problems: At most this many of the split, evenly spaced, so the same for every run; None takes all.
        fixed_first: First attempts are the base model's, and context only, instead of the policy's own.
    """

    split: Split = "test"
    attempts: int = 2
    samples: int = 1
    temperature: float = 0.0
    problems: int | None = None
    fixed_first: bool = False

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise ValueError(f"an evaluation's split is one of {', '.join(get_args(Split))}, not {self.split!r}")
        if (
            self.attempts < 1
            or self.samples < 1
            or self.temperature < 0
            or not (self.problems is None or self.problems > 0)
        ):
            raise ValueError(f"attempts, samples and problems are at least 1 and a temperature at least 0: {self}")
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"{self.samples} samples at temperature 0 are {self.samples} times the same answer")
        if self.fixed_first and self.attempts < 2:
            raise ValueError("with its first attempt fixed, an evaluation of one attempt asks the policy nothing")

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells its records from those of another evaluation of the same task (docs/results_format.md)."""
        return self.split, float(self.temperature), self.attempts, self.fixed_first

    @property
    def stream(self) -> tuple[str, ...]:
        """Names the random stream; nothing is drawn in greedy decoding."""
        return tuple(map(str, self.key)) if self.temperature else ()

    @property
    def batch(self) -> int:
        """Problems that are asked together."""
        return max(1, ROWS // self.samples)

    def __str__(self) -> str:
        parts = [self.split if self.split != "test" else "", f"{self.attempts} attempts" if self.attempts != 2 else ""]
        parts += [f"{self.samples} samples at {self.temperature:g}" if self.temperature else ""]
        parts += ["after the base model's first attempts" if self.fixed_first else ""]
        return ", ".join(filter(None, parts))

    def chosen(self, task: Task) -> Sequence[Problem]:
        """The problems asked, evenly spaced over the split."""
        every: Sequence[Problem] = getattr(task, self.split)
        count = min(self.problems or len(every), len(every))
        return every if count == len(every) else [every[i * len(every) // count] for i in range(count)]

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of eval.jsonl belongs to this evaluation (of some task, at some time)."""
        attempts = record["attempts"]
        split, fixed = record.get("split", "test"), attempts[0]["by"] == "reference"
        return (split, float(record["temperature"]), len(attempts), fixed) == self.key


@register("evaluation", "pool")
def pool(samples: int = 32, temperature: float = 0.7, problems: int | None = None, split: Split = "test") -> Evaluation:
    """Sampled two-attempt trajectories: majority@k, pass@k, scaling (arXiv 2409.12917v2, section 6.2: 0.7)."""
    return Evaluation(split, samples=samples, temperature=temperature, problems=problems)


@register("evaluation", "attempts")
def attempts(count: int = 10, problems: int | None = None) -> Evaluation:
    """Greedy with more attempts than were trained (arXiv 2409.12917v2, appendix A.1: 10)."""
    return Evaluation(attempts=count, problems=problems)


@register("evaluation", "validation")
def validation(problems: int | None = 1000) -> Evaluation:
    """Greedy on the training task's validation problems (arXiv 2409.12917v2, figures 4b and 4c)."""
    return Evaluation("validation", problems=problems)


@register("evaluation", "train")
def train(problems: int | None = 1000) -> Evaluation:
    """Greedy on problems that were trained on (arXiv 2409.12917v2, figures 4b and 4c)."""
    return Evaluation("train", problems=problems)


@register("evaluation", "fixed_first")
def fixed_first(split: Split = "test", problems: int | None = None) -> Evaluation:
    """Greedy second attempts after the base model's greedy first attempts (arXiv 2409.12917v2, figure 5)."""
    return Evaluation(split, problems=problems, fixed_first=True)
