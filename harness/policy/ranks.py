"""The processes of one run: how work is split among them, and how results and failures come together.

Every process knows the whole batch and draws from the same streams (harness.seeds); only sampling, grading and
gradients are divided, so N processes do what one does, up to rounding. The first process alone writes.

`accelerate launch` (or torchrun) starts the processes; accelerate joins them. torch is imported only when there is
more than one.
"""

from __future__ import annotations

import datetime
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from harness.seeds import shard_bounds

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = datetime.timedelta(hours=2)  # how long a process waits for another one's samples and grades
GONE = "another process of this run has ended; what it printed says why"
HOW = "accelerate launch --multi_gpu --num_processes N -m harness.run ... --processes N (docs/multi_gpu.md)"


class RanksError(RuntimeError):
    """Another process of this run failed, or the processes started are not those asked for."""


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of its run; by default the only one.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def shard_map(self, work: Callable[[Sequence[Item], int], list[Result]], items: Sequence[Item]) -> list[Result]:
        """The results of `work(share, its first item's number)` over all processes, in order, in every process."""
        begin, end = shard_bounds(len(items), self.rank, self.size)
        parts = self.all_gather_object(lambda: work(items[begin:end], begin) if end > begin else [])
        return [result for part in parts for result in part]

    def run_on_all_ranks(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in every process and returns this one's own result; an error in one is raised in all."""
        kept: list[Result] = []
        self.all_gather_object(lambda: kept.append(work()))
        return kept[0]

    def run_on_rank0(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in the first process and gives its result to all."""
        return self.all_gather_object(lambda: work() if self.is_first else None)[0]  # type: ignore[return-value]

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return any(self.all_gather_object(lambda: flag))

    def all_gather_object(self, work: Callable[[], Result]) -> list[Result]:
        """Runs `work` in every process and returns all results, by rank; an error in one is raised in all of them."""
        if self.size == 1:
            return [work()]
        from accelerate.utils import gather_object

        result, error = None, None
        try:
            result = work()
        except Exception as caught:  # whatever it is, the others must not wait for this process
            error = caught
        told = None if error is None else (type(error).__name__, str(error), traceback.format_exc())
        try:
            found = gather_object([(result, told)])
        except RuntimeError as lost:
            raise RanksError(GONE) from (error or lost)
        if error is not None:
            raise error
        for rank, (_, other) in enumerate(found):
            if other is not None:
                kind, text, trace = other
                expected = kind in ("ValueError", "OSError", "StoreError", "ConfigError")
                raise RanksError(f"process {rank} of {self.size}: {kind}: {text}" + ("" if expected else f"\n{trace}"))
        return [result for result, _ in found]

    def all_reduce_sum(self, tensor: Any) -> None:
        """Sums a tensor over the processes, in place."""
        if self.size > 1:
            import torch.distributed

            try:
                torch.distributed.all_reduce(tensor)
            except RuntimeError as lost:
                raise RanksError(GONE) from lost

    def shut_down(self) -> None:
        """Waits for the others, so that no launcher ends a process that is still writing, and parts."""
        if self.size > 1:
            import torch.distributed

            try:
                torch.distributed.barrier()
                torch.distributed.destroy_process_group()
            except RuntimeError:
                return  # the others are gone already


def end_process(status: int) -> NoReturn:
    """Ends this process of several at once, behind `Ranks.shut_down`: everything is written by then.

    Tensors that are divided among processes keep gloo's threads alive until the interpreter is torn down, where they
    may abort the process (SIGABRT, "terminate called without an active exception") although its work is done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def join_ranks(device: str = "auto") -> Ranks:
    """This process's place among those that the launcher started.

    Raises:
        RanksError: accelerate makes another number of processes of them.
    """
    if world_size() == 1:
        return Ranks()
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)
    if state.num_processes != world_size():
        raise RanksError(f"{world_size()} processes were started, accelerate joined {state.num_processes}: use {HOW}")
    return Ranks(state.process_index, state.num_processes)


def world_size() -> int:
    """How many processes the launcher says it has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_launched() -> bool:
    """Whether a launcher (accelerate's, or torchrun) has started this process."""
    return any(name in os.environ for name in ("WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"))


def check_world_size(asked: int | None) -> None:
    """Checks the number of processes started against the number asked for.

    Raises:
        RanksError: they differ; or a launcher started one process and nobody said that one is meant (with `--cpu`,
            accelerate ignores `--num_processes` without a word).
    """
    if asked is None and world_size() == 1 and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise RanksError(f"accelerate launch started one process: add --processes 1 if one is meant, else use {HOW}")
    if asked is not None and asked != world_size():
        raise RanksError(f"--processes {asked}, but {world_size()} were started: use {HOW}")
