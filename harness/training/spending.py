"""What training spends, in every currency: responses, sampled tokens, trained tokens, FLOPs. Pure; no torch.

Counted from the token ids of what was sampled and fitted, so a run that was killed and resumed has equal counts. What
each currency holds and leaves out: docs/budgets.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from harness.core import Example, Group

Currency = Literal["responses", "sampled_tokens", "trained_tokens", "flops"]
CURRENCIES: tuple[Currency, ...] = get_args(Currency)
FORWARD, BACKWARD = 2, 4  # FLOPs per parameter and token (Kaplan et al. 2020, arXiv 2001.08361, table 1)


def count_sampled(groups: Sequence[Group], parameters: int) -> dict[str, int]:
    """What sampling these trajectories has cost.

    Args:
        groups: Sampled trajectories.
        parameters: Of the model, without embeddings.

    Returns:
        `trajectories`; `responses` and `sampled_tokens`, of the policy and of the reference; `read_tokens`: all other
        tokens of the conversations (prompts, instructions, given replies); `flops`: one forward of every token, and a
        second one of what the reference has read and written.
    """
    found: dict[str, int] = dict.fromkeys(("trajectories", "responses", "sampled_tokens", "read_tokens", "flops"), 0)
    for trajectory in (trajectory for group in groups for trajectory in group):
        last = trajectory.turns[-1]
        whole = len(last.context) + len(last.tokens)
        sampled = [turn for turn in trajectory.turns if turn.by != "given"]
        tokens = sum(len(turn.tokens) for turn in sampled)
        again = sum(len(turn.context) + len(turn.tokens) for turn in sampled if turn.by == "reference")
        found["trajectories"] += 1
        found["responses"] += len(sampled)
        found["sampled_tokens"] += tokens
        found["read_tokens"] += whole - tokens
        found["flops"] += FORWARD * parameters * (whole + again)
    return found


def count_trained(examples: Sequence[Example], parameters: int) -> dict[str, int]:
    """What one update on these examples (encoded) has cost.

    Returns:
        `trained_tokens`: tokens that have a weight or a KL coefficient; `flops`: forward and backward of every token in
        the batch's rows, what is only measured included, and the reference's forward of the same rows.
    """
    trained = sum(len(e.turn.tokens) for e in examples if e.weight or e.kl)
    return {
        "trained_tokens": trained,
        "flops": (FORWARD + BACKWARD + FORWARD) * parameters * count_row_tokens(examples),
    }


def count_row_tokens(examples: Sequence[Example]) -> int:
    """Tokens of the rows that the trainer reads: a turn that another's context continues is read with that one."""
    total, row = 0, ()
    for ids in sorted((e.turn.context + e.turn.tokens for e in examples if e.turn.tokens), reverse=True):
        if row[: len(ids)] != ids:  # in sorted order an extension stands right before its prefix
            row = ids
            total += len(ids)
    return total
