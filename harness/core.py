"""The data types and protocols that all parts of the harness share; standard library only.

A *trajectory* is one problem and the *turns* made on it; attempt i is turn i. Code counts turns from 0, reported
metrics say t1, t2 as the paper does (arXiv 2409.12917v2).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Status = Literal["ok", "no_answer", "truncated", "timeout", "error"]
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Attributes:
        id: Unique within the task and stable between runs; the unit of paired statistics.
        prompt: The problem as text, without instructions (the task's `chat` adds those).
        answer: What the verifier compares with or runs: a gold answer, or tests.
        solution: A worked reference solution, where the data has one (SFT-oracle's target).
        given: Fixed first attempts (repair tasks): context for the policy, never a target.
        meta: Whatever else the row carries (level, subject, entry point).
    """

    id: str
    prompt: str
    answer: str
    solution: str | None = None
    given: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A verifier's judgement of one response.

    Attributes:
        reward: The oracle reward r(y, y*) of arXiv 2409.12917v2, section 3; binary in every built-in verifier.
        correct: Whether the response counts as right in accuracies.
        status: `ok` when the response was graded; else why it was not. `error` and `timeout` mean that the grader
            could not tell: they pay 0 but are reported apart from wrong answers.
        answer: The extracted answer, in a canonical form: two responses give *the same answer* when these are equal.
        flag: What a reader must know of how it was graded, else ''. `compat`: program and tests shared one process, so
            the program could have forged the verdict.
        reason: How the verdict came about, where the verifier can tell more than the status: the test that failed, the
            rule that compared. For readers alone: it computes nothing, and verdicts are equal without it. Equal
            inputs must give equal texts.
    """

    reward: float
    correct: bool
    status: Status = "ok"
    answer: str | None = None
    flag: str = ""
    reason: str = field(default="", compare=False)


@dataclass(frozen=True)
class Turn:
    """One response within a trajectory, with the exact token ids the policy saw and wrote.

    Attributes:
        context: Token ids of everything before the response (prompt, earlier turns, instruction).
        tokens: Token ids of the response, the end-of-sequence token included when the policy wrote one. A target that
            a method sets as text alone (a reference solution) leaves them empty: the policy encodes it.
        text: The response as text, without special tokens.
        verdict: The grade of this turn alone.
        index: Index of this attempt, from 0. An unscored turn (feedback) has the index of the attempt that follows.
        by: `policy` (on-policy, trainable), `reference` (sampled from the base model) or `given` (a fixed program);
            the last two are context only.
        scored: False for turns that are no attempt (Self-Refine's feedback).
        truncated: The length limit was hit before the policy ended its response.
        logprobs: The sampler's log-probability of each of `tokens`, at the sampling temperature; empty for given turns.
    """

    context: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    verdict: Verdict
    index: int = 0
    by: Literal["policy", "reference", "given"] = "policy"
    scored: bool = True
    truncated: bool = False
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Trajectory:
    """One problem and the turns made on it, in order."""

    problem: Problem
    turns: tuple[Turn, ...]

    @property
    def attempts(self) -> tuple[Turn, ...]:
        """The scored turns: attempt 1, attempt 2, ..."""
        return tuple(turn for turn in self.turns if turn.scored)

    @property
    def rewards(self) -> tuple[float, ...]:
        """The oracle reward of each attempt, before any shaping."""
        return tuple(turn.verdict.reward for turn in self.attempts)


Group = Sequence[Trajectory]
"""All trajectories of one problem within one batch."""


@dataclass(frozen=True)
class Example:
    """One turn to train on.

    The loss is the mean over the batch (see `Phase.mean_over`) of
    `-weight * log pi(turn) + kl * sum over the turn's tokens of KL(pi || reference)`.

    Attributes:
        turn: The turn whose tokens are trained; must be `by="policy"` or a target text set by the method.
        weight: Factor of the turn's log-likelihood: an advantage in RL, 1 in SFT.
        kl: Coefficient of the turn's KL to the reference (beta of the paper); per turn by design.
        bonus: The part of the turn's reward that is shaping, before any baseline. Logged, never trained on.
    """

    turn: Turn
    weight: float = 1.0
    kl: float = 0.0
    bonus: float = 0.0


@dataclass(frozen=True)
class TurnStats:
    """What a policy's step saw of one example: sums over its tokens, before the update.

    Attributes:
        logprob: Of the whole turn, in nats.
        kl: The estimator's value summed over the turn's tokens, in nats; None where the reference was not asked.
        entropy: Summed over the turn's tokens, in nats.
        tokens: How many there were.
        gap: Absolute differences between the sampler's and the trainer's log-probabilities, where a sampler wrote it.
    """

    logprob: float = 0.0
    kl: float | None = 0.0
    entropy: float = 0.0
    tokens: int = 0
    gap: float = 0.0


Credit = Callable[[Sequence[Group]], Sequence[Example]]
"""A pure function from graded trajectories, grouped by problem, to the turns to train on."""

Log = Sequence[Mapping[str, Any]]
"""Lines of metrics.jsonl, oldest first."""


@dataclass(frozen=True)
class Budget:
    """What every row may spend. All rows of a comparison share one.

    Attributes:
        steps: Gradient updates.
        problems: Problems drawn for one update.
        samples: Two-attempt trajectories sampled for each of them; what is held equal is the *responses*, so phases
            of k attempts sample 2 / k times as many (`trajectories_per_problem`).
    """

    steps: int
    problems: int
    samples: int

    def __post_init__(self) -> None:
        for name in ("steps", "problems", "samples"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < (0 if name == "steps" else 1):
                raise ValueError(f"budget.{name} must be a positive whole number, not {value!r}")

    def trajectories_per_problem(self, turns: int) -> int:
        """Trajectories of `turns` attempts per problem that cost as many responses as `samples` of two attempts.

        Raises:
            ValueError: the responses cannot be divided so.
        """
        count, rest = divmod(2 * self.samples, turns)
        if rest or not count:
            raise ValueError(
                f"{2 * self.samples} responses per problem cannot be divided into trajectories of {turns} attempts: "
                f"make 2 * run.samples a multiple of {turns}, so that all rows draw equally many responses"
            )
        return count

    def allocate_steps(self, shares: Sequence[float]) -> list[int]:
        """Divides the steps among phases in proportion to `shares`; the parts always add up to `steps`."""
        if any(share < 0 for share in shares) or (shares and sum(shares) <= 0):
            raise ValueError(f"shares of the budget must be non-negative and not all 0, got {list(shares)}")
        total, edges = sum(shares), [0]
        for i in range(len(shares)):
            edges.append(round(self.steps * sum(shares[: i + 1]) / total))
        return [b - a for a, b in itertools.pairwise(edges)]


@dataclass(frozen=True)
class Phase:
    """One stretch of training under one credit function.

    Attributes:
        name: Logged with every step; unique within a method's phases.
        steps: Gradient updates of this phase.
        credit: From graded groups to examples; pure, holds no torch.
        adapt: For coefficients that follow training: from this phase's log so far to the credit of the next update.
            `credit` is then that of the first. Pure as well, so that a resumed run goes on as it would have.
        turns: Attempts sampled in training.
        refresh_every: The dial between RL and SFT. 1: fresh on-policy samples for every update. n: the samples of n
            updates are drawn at once, credited together, then fitted by n updates over shuffled minibatches.
        mean_over: What the loss is a mean over. `trajectory` (RL): every trajectory drawn, with an example or not, so
            the estimate of the policy gradient is unbiased. `example` or `token` (SFT): the minibatch's own.
        given_share: Share of the trajectories whose first attempt is sampled from the *reference* model and then only
            context ("offline prompts", arXiv 2409.12917v2, section 5.3).
        restart: Fit the phase's first samples from the base model's weights (STaR's rounds sample from the current
            model and re-tune the base), not from the current ones.
    """

    name: str
    steps: int
    credit: Credit
    turns: int = 2
    refresh_every: int = 1
    mean_over: Literal["trajectory", "example", "token"] = "trajectory"
    given_share: float = 0.0
    restart: bool = False
    adapt: Callable[[Log], Credit] | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or self.turns < 1 or self.refresh_every < 1 or not 0 <= self.given_share <= 1:
            raise ValueError(f"phase {self.name!r}: impossible steps, turns, refresh_every or given_share in {self}")


class Method(Protocol):
    """A row of the leaderboard: how one budget is spent."""

    def phases(self, budget: Budget) -> Sequence[Phase]:
        """The phases in order; together they take exactly `budget.steps` updates (none for untrained rows)."""
        ...


class Verifier(Protocol):
    """Grades one response."""

    def __call__(self, problem: Problem, text: str) -> Verdict: ...


class Task(Protocol):
    """A benchmark: problems, how they are asked, and how answers are graded.

    `train`, `validation` and `test` are disjoint. `version` changes whenever a number could: it keeps results of
    different data or prompts out of one table.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def train(self) -> Sequence[Problem]: ...
    @property
    def validation(self) -> Sequence[Problem]: ...
    @property
    def test(self) -> Sequence[Problem]: ...
    @property
    def verifier(self) -> Verifier: ...

    def chat(self, problem: Problem, answers: Sequence[str]) -> list[Message]:
        """The conversation that asks for the next attempt, given the texts of the earlier ones."""
        ...


class Display(Protocol):
    """Where progress is shown."""

    def phase(self, text: str, total: int, done: int = 0) -> None: ...
    def advance(self, line: dict[str, Any] | None = None, count: int = 1) -> None: ...


class Session(Protocol):
    """B = len(chats) * samples conversations in progress: row i is sample `i % samples` of chat `i // samples`.

    `reply` or `give`, then `ask`, then `reply` or `give`, and so on. A turn's `context` begins with the context and
    the tokens of the turn before: token ids are only appended, so that what was written is what is trained.
    """

    def reply(self) -> list[Turn]:
        """The policy writes the next reply of every conversation.

        Returns:
            B turns with a placeholder for the verdict; `logprobs` has as many entries as `tokens`. A conversation
            without room for a reply gets an empty one with `truncated` set.

        Raises:
            ValueError: a log-probability is not finite.
        """
        ...

    def give(self, replies: Sequence[str | Sequence[int]]) -> list[Turn]:
        """Puts B fixed replies (texts, or token ids of this policy) where the next ones would be.

        Returns:
            B turns with `by="given"` and no log-probabilities.
        """
        ...

    def ask(self, texts: Sequence[str]) -> None:
        """Appends `texts[i]` (of B) as the user's turn of conversation i, after its last reply."""
        ...


class Ranks(Protocol):
    """This process among those of its run. `harness.policy.ranks.Ranks()` is the one of a run of one process."""

    def shard_map(self, work: Callable[[Sequence[Item], int], list[Result]], items: Sequence[Item]) -> list[Result]:
        """The results of `work(share, its first item's number)` over all processes, in order, in every process."""
        ...

    def run_on_all_ranks(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in every process and returns this one's own result; an error in one is raised in all."""
        ...

    def run_on_rank0(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in the first process and gives its result to all."""
        ...

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        ...

    def all_gather_object(self, work: Callable[[], Result]) -> list[Result]:
        """Runs `work` in every process and returns all results, by rank; an error in one is raised in all."""
        ...


class Policy(Protocol):
    """What samples and learns: all that the loop, the rollout and the evaluations know of a model.

    `harness.policy.engine` implements it with transformers, `harness.training.scripted` with a plain function.
    A *reference* is the policy as it was before any update; it never changes. Where a number or an input is not usable
    a member raises ValueError, and nothing was updated.
    """

    @property
    def ranks(self) -> Ranks:
        """The processes of the run; all of them call the same members in the same order."""
        ...

    @property
    def temperature(self) -> float:
        """Of sampling in training, and of the distribution whose log-probabilities and gradient are taken."""
        ...

    @property
    def cut_prompts(self) -> int:
        """How many of the prompts opened so far, by this process, lost tokens to a limit of length."""
        ...

    def describe(self) -> dict[str, Any]:
        """What run.json records as `engine`: entries that JSON can hold, equal when results can be compared."""
        ...

    def require_room(
        self,
        chat: Sequence[Message],
        asks: Sequence[str],
        given: Sequence[str] = (),
        attempts: int | None = None,
        further: int = 0,
        drafts: Sequence[str] | None = None,
    ) -> None:
        """Checks, before anything is computed, that a conversation fits the limits of length.

        Args:
            chat: Its opening.
            asks: What the user says after each reply but the last.
            given: Fixed first replies, of which one takes the first reply's place.
            attempts: How many replies count at their longest; all of them unless given.
            further: Replies that may follow where there is room.
            drafts: Where not None, the opening will also hold a draft: one of these, or a reply of the policy.

        Raises:
            ValueError: it does not fit.
        """
        ...

    def refresh(self) -> None:
        """Makes the newest weights those that sample; called in all processes before `open`, in any number of them."""
        ...

    def open(
        self, chats: Sequence[Sequence[Message]], samples: int, seed: int, temperature: float, reference: bool = False,
        place: tuple[int, int] | None = None,
    ) -> Session:  # fmt: skip
        """Opens `samples` conversations on each chat, next to each other.

        Args:
            seed: Of all draws of these conversations; equal calls give equal replies.
            temperature: 0 is greedy.
            reference: Whether the reference writes, not the policy.
            place: The first chat's number in its batch, and how many chats the batch has: what is sampled depends on
                these alone, not on which process does it. The chats are the whole batch unless given.

        Raises:
            ValueError: a prompt is longer than the limits allow.
        """
        ...

    def encoded(self, examples: Sequence[Example]) -> list[Example]:
        """The examples, in order, with the tokens of every target that a method has set as text alone."""
        ...

    def step(
        self, examples: Sequence[Example], denominator: float, fresh: bool = False
    ) -> tuple[list[TurnStats], float]:
        """One gradient update on the sum of the examples' losses (see `Example`) over `denominator`.

        Args:
            examples: Encoded. One with weight and kl of 0 is measured but has no gradient.
            denominator: What the loss is a mean over.
            fresh: Whether the turns were sampled from the very weights that are about to change.

        Returns:
            Statistics of each example before the update, and the norm of the gradient before clipping.

        Raises:
            ValueError: a number is not finite; no update was made.
        """
        ...

    def restart(self) -> None:
        """Back to the reference's weights, with a fresh optimiser."""
        ...

    def save(self, folder: Path) -> None:
        """Writes all that `step` changes into `folder`, as files without subfolders, making it where it is missing."""
        ...

    def load(self, folder: Path) -> None:
        """Takes what `save` has written; the reference stays.

        Raises:
            ValueError: a file is damaged or belongs to another policy.
        """
        ...

    def export(self, folder: Path) -> None:
        """Writes the trained policy, without what only training needs, whole or not at all; an older one goes."""
        ...

    def adopt(self, folder: Path) -> None:
        """Takes what `export` has written; the reference stays.

        Raises:
            ValueError: as `load`.
        """
        ...


class PolicySpec(Protocol):
    """A policy's settings: light to build and to compare. What a gin file names as `@policy.NAME()`."""

    @property
    def key(self) -> str:
        """The policy's name in the results folder: letters, digits and . _ + - only, a letter or digit first."""
        ...

    def load(self, device: str = "cpu") -> Policy:
        """Builds the policy; what is slow to import is imported here.

        Args:
            device: As given to `--device`: "auto", "cpu", "cuda", "cuda:1".

        Raises:
            ValueError: the settings, the files or the device cannot be used.
        """
        ...
