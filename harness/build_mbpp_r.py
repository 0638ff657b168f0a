"""`python -m harness.build_mbpp_r`: builds a file of repair problems from MBPP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness import config
from harness.policy import HF
from harness.tasks.source import DataError
from harness.tools.mbpp_r import BASE, Recipe, _check, build_set
from harness.training.experiment import Experiment

EPILOG = """examples:
  from a model's own errors:
    python -m harness.build_mbpp_r --out mbpp_r.jsonl --bind "hf.path = 'Qwen/Qwen2.5-1.5B-Instruct'"
    python -m harness.build_mbpp_r --out mbpp_r.jsonl --bind MODEL=Qwen/Qwen2.5-1.5B-Instruct
  without a model, one slip in each reference program:
    python -m harness.build_mbpp_r --out mutants.jsonl --mutants --bind "build_mbpp_r.problems = 20"
  grade somebody else's file, and keep what is truly wrong of it:
    python -m harness.build_mbpp_r --check theirs.jsonl --out checked.jsonl
MBPP from a file: --bind "task.mbpp.data = 'mbpp.jsonl'". Stopped at any moment, the same command goes on.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    console = Console(stderr=True, highlight=False)
    if args.check is None and args.out is None:
        parser.error("--out FILE.jsonl is needed (or --check FILE)")
    try:
        config.prepare_gin(Experiment, "run")  # model files may bind it
        config.prepare_gin(Recipe, "build_mbpp_r")
        policy = [] if args.mutants or args.check else ["build_mbpp_r.policy = @policy.hf()"]
        unsafe = ["code.unsafe_exec = True"] if args.unsafe_exec else []
        config.parse_gin([BASE, *args.gin], [*policy, *args.bind, *unsafe])
        recipe: Recipe = config.build_root("build_mbpp_r")
        if args.check:
            return _check(recipe, args.check, args.out)
        if recipe.policy and recipe.policy.path == HF().path:
            parser.error("which model? --bind MODEL=NAME_OR_FOLDER; or --mutants, without one")
        build_set(recipe, args.out, args.device)
        return 0
    except KeyboardInterrupt:
        console.print("interrupted; every batch graded so far is kept: the same command goes on from there")
        return 130
    except (DataError, OSError, ValueError, RuntimeError) as error:
        console.print("[bold red]error:[/] ", end="")
        console.print(str(error), markup=False, soft_wrap=True)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.build_mbpp_r", description=(__doc__ or "").partition("\n\nDiffers")[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="the set; provenance and samples go beside it")
    parser.add_argument(
        "--mutants", action="store_true", help="single-edit mutants of the reference programs, no model"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="grade the wrong programs of a file instead")
    parser.add_argument("--gin", action="append", default=[], metavar="FILE", help=f"gin file after {BASE}; repeatable")
    parser.add_argument("--bind", action="append", default=[], metavar="'NAME = VALUE'", help="one binding; repeatable")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1")
    parser.add_argument("--unsafe-exec", action="store_true", help="run programs even where no sandbox stands")
    return parser


if __name__ == "__main__":
    sys.exit(main())
