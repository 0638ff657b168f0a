"""Does a second attempt on this testbed need the draft? `python -m benchmarks.testbed_acceptance --gin FILE ...`

    python -m benchmarks.testbed_acceptance --gin gin/base.gin --gin gin/task/embedded_shell_game.gin

No method is run. The base model's two greedy attempts are counted; its wrong first attempts are compared with the right
answer symbol by symbol; first attempts are sampled for head room; and three fits of the base on right answers, at one
budget, say what a perfect review can learn: with the draft (the context of a second attempt), asked by the second
instruction right after the problem, and by the problem alone. First attempts are the base's throughout: sampled at
temperature 1 to fit on, greedy to measure. The criteria, `CRITERIA`, were set before the shipped base was built
(docs/testbed.md). Exit status 1 where one is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import config
from harness.core import Example, Problem, Trajectory, Turn, Verdict
from harness.grading import grade_responses
from harness.metrics import pass_at
from harness.metrics.stats import Interval, bootstrap_interval, delta_interval, wilson_interval
from harness.seeds import derive_seed, epoch_indices
from harness.training.experiment import Experiment
from harness.training.rollout import sample_rollouts

if TYPE_CHECKING:
    from harness.policy.engine import Policy

ACC_T1 = (0.30, 0.60)
LEAST_GAP = 0.15
LEAST_FLIPS, MOST_IMBALANCE = 0.01, 0.03
PLACES, LEAST_LOCAL = 2, 0.90
SAMPLES, LEAST_HEAD_ROOM = 8, 0.10

DRAFT, SECOND, FIRST = "with the draft", "second instruction, no draft", "the problem alone"
FORMS = (DRAFT, SECOND, FIRST)
OTHER = "with the draft of another problem"
BATCH = 256  # conversations decoded together


@dataclass(frozen=True)
class Budget:
    """Of one fit: gradient updates, problems of each, first attempts sampled on each problem."""

    updates: int
    problems: int
    samples: int


@dataclass(frozen=True)
class Base:
    """What was measured of the untrained model.

    Attributes:
        greedy: Two greedy attempts on every test problem.
        sampled: For each problem of the pool, its sampled first attempts.
    """

    greedy: Sequence[Trajectory]
    sampled: Sequence[Sequence[Turn]]

    def flips(self) -> tuple[int, int]:
        """Problems mended (i to c) and broken (c to i) by the second greedy attempt."""
        pairs = [tuple(verdict.correct for verdict in _verdicts(t)) for t in self.greedy]
        return pairs.count((False, True)), pairs.count((True, False))

    def accuracy(self, attempt: int) -> Interval:
        """Greedy accuracy of attempt 1 or 2 (given as 0 or 1)."""
        return wilson_interval(sum(_verdicts(t)[attempt].correct for t in self.greedy), len(self.greedy))

    def wrong_places(self) -> Counter[int | None]:
        """How many wrong first attempts are wrong in how many symbols (greedy)."""
        return Counter(
            count_wrong_places(t.problem.answer, t.attempts[0].verdict.answer)
            for t in self.greedy
            if not t.attempts[0].verdict.correct
        )

    def sampled_wrong_places(self) -> Counter[int | None]:
        """The same for the first attempts of the pool (temperature 1)."""
        problems = [t.problem for t in self.greedy]
        return Counter(
            count_wrong_places(problem.answer, turn.verdict.answer)
            for problem, turns in zip(problems, self.sampled, strict=False)
            for turn in turns
            if not turn.verdict.correct
        )

    def pass_at(self, k: int) -> float:
        """pass@k of the pool at temperature 1."""
        counts = [(len(turns), sum(turn.verdict.correct for turn in turns)) for turns in self.sampled]
        return float(np.mean([pass_at(n, c, k) for n, c in counts]))


@dataclass(frozen=True)
class Criterion:
    """One line of the verdict: what was asked, what came out, whether that is enough."""

    text: str
    asked: str
    found: str
    met: bool


def count_wrong_places(right: str, answer: object) -> int | None:
    """In how many symbols an answer differs from the right one; None where it has another length, or there is none."""
    if not isinstance(answer, str) or len(answer) != len(right):
        return None
    return sum(a != b for a, b in zip(answer, right, strict=True))


def measure_base(policy: Policy, experiment: Experiment, problems: Sequence[Problem], pool: int) -> Base:
    """Two greedy attempts on each problem, and `SAMPLES` first attempts at temperature 1 on the first `pool`."""
    greedy: list[Trajectory] = []
    for begin in range(0, len(problems), BATCH):
        part = problems[begin : begin + BATCH]
        groups = sample_rollouts(
            policy, experiment.task, experiment.dialogue, part, samples=1, attempts=2, seed=0, temperature=0.0
        )
        greedy += [trajectory for group in groups for trajectory in group]
    sampled: list[list[Turn]] = []
    for begin in range(0, pool, BATCH // SAMPLES):
        part = problems[begin : min(pool, begin + BATCH // SAMPLES)]
        groups = sample_rollouts(
            policy, experiment.task, experiment.dialogue, part, samples=SAMPLES, attempts=1,
            seed=derive_seed(0, "acceptance", "pool", begin), temperature=1.0,
        )  # fmt: skip
        sampled += [[trajectory.attempts[0] for trajectory in group] for group in groups]
    return Base(greedy, sampled)


def contexts(
    policy: Policy, experiment: Experiment, problems: Sequence[Problem], drafts: Sequence[Turn], form: str
) -> list[tuple[int, ...]]:
    """Token ids up to where the second attempt begins, in one of `FORMS`; one draft for each problem."""
    found = []
    for problem, draft in zip(problems, drafts, strict=True):
        first = list(experiment.task.chat(problem, []))
        second = experiment.dialogue.ask(experiment.task, problem, [draft.text])
        if form == DRAFT:
            found.append(
                (*policy.encode_prompt(first), *draft.tokens, *policy.chat.encode_followup(second, draft.tokens))
            )
        else:
            asked = [*first, {"role": "user", "content": second}] if form == SECOND else first
            found.append(policy.encode_prompt(asked))
    return found


def sample_drafts(
    policy: Policy, experiment: Experiment, budget: Budget, seed: int
) -> list[tuple[list[Problem], list[Turn]]]:
    """For each update of a fit its problems and the base's first attempts on them, at temperature 1."""
    task, size = experiment.task, budget.problems
    order = epoch_indices(seed, "acceptance", len(task.train), 0, budget.updates * size)
    each = [task.train[i] for i in order for _ in range(budget.samples)]
    turns: list[Turn] = []
    policy.refresh()
    for begin in range(0, len(order), BATCH):
        chats = [task.chat(task.train[i], []) for i in order[begin : begin + BATCH]]
        session = policy.open(
            chats,
            budget.samples,
            seed=derive_seed(seed, "acceptance", "drafts", begin),
            temperature=1.0,
            reference=True,
        )
        turns += session.reply()
    step = size * budget.samples
    return [(each[i : i + step], turns[i : i + step]) for i in range(0, len(each), step)]


def fit(
    policy: Policy, experiment: Experiment, batches: Sequence[tuple[list[Problem], list[Turn]]], form: str
) -> list[float]:
    """Fits the base, from its own weights, on right answers in one form of context; returns each update's loss."""
    losses = []
    policy.restart()
    for problems, drafts in batches:
        examples = [
            Example(Turn(context, (), _solution(problem), Verdict(1.0, True), index=1))
            for problem, context in zip(problems, contexts(policy, experiment, problems, drafts, form), strict=True)
        ]
        stats, _ = policy.step(policy.encoded(examples), denominator=len(examples))
        losses.append(-sum(item.logprob for item in stats) / len(stats))
    policy.refresh()
    return losses


def answer_again(
    policy: Policy, experiment: Experiment, problems: Sequence[Problem], drafts: Sequence[Turn], form: str
) -> list[bool]:
    """Whether each problem's greedy second attempt is right, after the given drafts or without them."""
    right: list[bool] = []
    for begin in range(0, len(problems), BATCH):
        part, given = problems[begin : begin + BATCH], drafts[begin : begin + BATCH]
        chats = [list(experiment.task.chat(problem, [])) for problem in part]
        asked = [
            experiment.dialogue.ask(experiment.task, problem, [turn.text])
            for problem, turn in zip(part, given, strict=True)
        ]
        if form == SECOND:
            chats = [[*chat, {"role": "user", "content": text}] for chat, text in zip(chats, asked, strict=True)]
        session = policy.open(chats, 1, seed=0, temperature=0.0)
        if form == DRAFT:
            session.give([turn.tokens for turn in given])
            session.ask(asked)
        pairs = list(zip(part, (turn.text for turn in session.reply()), strict=True))
        right += [verdict.correct for verdict in grade_responses(experiment.task.verifier, pairs)]
    return right


def judge(base: Base, right: Mapping[str, Any]) -> list[Criterion]:
    """The criteria, from the base and from [seed, problem] arrays of right second attempts by form."""
    n, (mended, broken) = len(base.greedy), base.flips()
    accuracy, blind = base.accuracy(0), better_blind(right)
    gap = bootstrap_interval(np.asarray(right[DRAFT], float) - np.asarray(right[blind], float))
    places = base.wrong_places()
    near = sum(count for key, count in places.items() if key is not None and key <= PLACES)
    local, room = near / max(1, sum(places.values())), base.pass_at(SAMPLES) - base.pass_at(1)
    return [
        Criterion(
            "the draft is needed: fit with the draft less the better fit without it", f"above {_pct(LEAST_GAP)} points",
            f"{_interval(gap)} points", gap.lo >= LEAST_GAP,
        ),
        Criterion(
            "greedy Acc@t1 of the base", f"{_pct(ACC_T1[0])} to {_pct(ACC_T1[1])} %", f"{_interval(accuracy)} %",
            ACC_T1[0] <= accuracy.mean <= ACC_T1[1],
        ),
        Criterion(
            "the base's reviews mend about as much as they break",
            f"each at least {_pct(LEAST_FLIPS)} %, at most {_pct(MOST_IMBALANCE)} points apart",
            f"mended {_pct(mended / n)} %, broken {_pct(broken / n)} %",
            min(mended, broken) >= LEAST_FLIPS * n and abs(mended - broken) <= MOST_IMBALANCE * n,
        ),
        Criterion(
            f"errors are local: wrong first attempts that are wrong in at most {PLACES} symbols",
            f"at least {_pct(LEAST_LOCAL)} %", f"{_pct(local)} %", local >= LEAST_LOCAL,
        ),
        Criterion(
            f"head room at temperature 1: pass@{SAMPLES} - pass@1", f"at least {_pct(LEAST_HEAD_ROOM)} points",
            f"{_pct(base.pass_at(SAMPLES))} - {_pct(base.pass_at(1))} = {_pct(room)} points", room >= LEAST_HEAD_ROOM,
        ),
    ]  # fmt: skip


def better_blind(right: Mapping[str, Any]) -> str:
    """The form without a draft whose fits are right more often."""
    return max((SECOND, FIRST), key=lambda form: float(np.mean(right[form])))


def report(
    head: Sequence[str],
    base: Base,
    right: Mapping[str, Any],
    losses: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
) -> str:
    """The numbers as Markdown.

    Args:
        head: First lines.
        right: Of each form, [seed, problem] whether the second attempt is right.
        losses: Of each fitted form, the losses of its last updates, all seeds together.
        seeds: Of the fits.
    """
    n, (mended, broken), criteria = len(base.greedy), base.flips(), judge(base, right)
    unchanged = sum(_verdicts(t)[0].answer == _verdicts(t)[1].answer for t in base.greedy)
    grids = {form: np.asarray(right[form], float) for form in (*FORMS, OTHER)}
    first = np.array([_verdicts(t)[0].correct for t in base.greedy])
    fits = [
        [form, *map(_pct, rows.mean(axis=1)), _interval(bootstrap_interval(rows)), _pct(_mean(rows[:, ~first])),
         _pct(_mean(rows[:, first])), f"{_mean(losses[form]):.3f}" if form in losses else ""]
        for form, rows in grids.items()
    ]  # fmt: skip
    parts = [
        *head,
        "**accepted**" if all(item.met for item in criteria) else "**not accepted**",
        _table(
            ["criterion", "asked for", "found", "met"],
            [[c.text, c.asked, c.found, "yes" if c.met else "**no**"] for c in criteria],
        ),
        f"## The base, greedy\n\n{n} test problems; percent with 95 % intervals over problems, and counts.",
        _table(
            ["Acc@t1", "Acc@t2", "delta", "mended (i to c)", "broken (c to i)", "unchanged answers"],
            [[_interval(base.accuracy(0)), _interval(base.accuracy(1)), _interval(delta_interval(mended, broken, n)),
              str(mended), str(broken), str(unchanged)]],
        ),
        "## Right second attempts after fits on right answers\n\nPercent of the same problems, after the base's greedy "
        "first attempts: of all, with a 95 % interval over problems and\nseeds, and of those after a wrong and after a "
        "right first attempt. The loss is in nats per answer, over the last 20 updates.\nThe last line is the fit with "
        "the draft when it is shown the next problem's draft instead.",
        _table(
            ["second attempt", *(f"seed {seed}" for seed in seeds), "mean", "after wrong", "after right", "loss"],
            fits,
        ),
        "## Wrong symbols in the base's wrong first attempts",
        _places(base),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _places(base: Base) -> str:
    kinds = {"greedy": base.wrong_places(), "temperature 1": base.sampled_wrong_places()}
    columns, rows = range(1, 6), []
    for name, places in kinds.items():
        total, more = (
            sum(places.values()),
            sum(n for key, n in places.items() if key is not None and key not in columns),
        )
        counts = [*(places[key] for key in columns), more, places[None]]
        rows.append([name, str(total), *(f"{_pct(count / max(1, total))} %" for count in counts)])
    return _table(["", "wrong attempts", *map(str, columns), "more", "other length, or no answer"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _verdicts(trajectory: Trajectory) -> list[Verdict]:
    return [turn.verdict for turn in trajectory.attempts]


def _solution(problem: Problem) -> str:
    if problem.solution is None:
        raise ValueError(f"a fit on right answers needs reference solutions, and problem {problem.id!r} has none")
    return problem.solution


def _mean(values: Any) -> float:
    return float(np.mean(values)) if np.size(values) else float("nan")


def _pct(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(value: Interval) -> str:
    return f"{_pct(value.mean)} [{_pct(value.lo)}, {_pct(value.hi)}]"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gin", action="append", required=True, metavar="FILE", help="gin file; repeat to override")
    parser.add_argument("--bind", action="append", default=[], metavar="'NAME = VALUE'", help="one binding; repeatable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the fits")
    parser.add_argument("--updates", type=int, default=200, help="gradient updates of one fit")
    parser.add_argument("--problems", type=int, default=64, help="problems of one update")
    parser.add_argument("--samples", type=int, default=1, help="first attempts sampled on each")
    parser.add_argument("--test", type=int, default=1000, help="test problems, from the first")
    parser.add_argument("--pool", type=int, default=250, help="of them sampled for head room")
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: print)")
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"

    config.prepare_gin(Experiment, "run")
    config.parse_gin(args.gin, args.bind)
    experiment: Experiment = config.build_root("run")
    spec: Any = experiment.policy  # the transformers engine: the fits take its chat format apart
    policy = spec.load("cpu")
    weights = Path(spec.model_source) / "model.safetensors"
    problems = experiment.task.test[: args.test]
    budget = Budget(args.updates, args.problems, args.samples)

    base = measure_base(policy, experiment, problems, min(args.pool, len(problems)))
    drafts = [trajectory.attempts[0] for trajectory in base.greedy]
    right: dict[str, list[list[bool]]] = {form: [] for form in (*FORMS, OTHER)}
    losses: dict[str, list[float]] = {form: [] for form in FORMS}
    for seed in args.seeds:
        batches = sample_drafts(policy, experiment, budget, seed)
        for form in FORMS:
            losses[form] += fit(policy, experiment, batches, form)[-20:]
            right[form].append(answer_again(policy, experiment, problems, drafts, form))
            if form == DRAFT:
                right[OTHER].append(answer_again(policy, experiment, problems, [*drafts[1:], drafts[0]], form))
            print(f"seed {seed}, {form}: {_pct(_mean(right[form][-1]))} %", file=sys.stderr, flush=True)

    files = " ".join(f"--gin {path}" for path in args.gin) + "".join(f' --bind "{item}"' for item in args.bind)
    head = [
        f"# Does a second attempt need the draft? Task {experiment.task.name}, base {spec.path}",
        f"Written by `python -m benchmarks.testbed_acceptance {files}`; what is measured, and why: docs/testbed.md.\n"
        f"Each fit: {budget.updates} updates of {budget.problems} problems x {budget.samples}, learning rate "
        f"{spec.lr:g}; replies of at most {spec.max_new_tokens} tokens."
        + (
            f"\nSHA-256 of the weights: {hashlib.sha256(weights.read_bytes()).hexdigest()}" if weights.is_file() else ""
        ),
    ]
    text = report(head, base, right, losses, args.seeds)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0 if all(item.met for item in judge(base, right)) else 1


if __name__ == "__main__":
    sys.exit(main())
