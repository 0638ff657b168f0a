"""`python -m harness.push FOLDER USER/NAME`: a run's model, or a results folder, onto the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.terminal import escape_controls


def main(argv: Sequence[str] | None = None, prog: str = "python -m harness.push") -> int:
    """The command line; returns 0, 1 where the hub refused or could not be reached, 2 for a mistake."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Uploads a run's model with a model card made of its files, or (--results) a results folder as a "
        "dataset with its tables. A repository that is made is private unless --public is given.",
        epilog="log in first: `hf auth login`, or set HF_TOKEN. --card prints the card and uploads nothing.",
    )
    parser.add_argument(
        "folder", type=Path, help="a run's folder, .../<name>/seed<k>; with --results, a results folder"
    )
    parser.add_argument("repository", nargs="?", metavar="USER/NAME", help="where to, on the hub")
    parser.add_argument("--results", action="store_true", help="push the results as a dataset, not a model")
    parser.add_argument("--public", action="store_true", help="a repository that is made can be seen by everybody")
    parser.add_argument("--card", action="store_true", help="print the card that would be uploaded, and stop")
    options = parser.parse_args(argv)
    if not options.card and not options.repository:
        parser.error("USER/NAME is missing: where to, on the hub")
    from harness.tools import hub  # pandas and the hub's client take a while to import

    try:
        if options.card:
            folder = options.folder
            print(hub.make_dataset_card(folder) if options.results else hub.make_model_card(hub.find_run(folder)))
            return 0
        push = hub.push_results if options.results else hub.push_model
        print(push(options.folder, options.repository, public=options.public))
    except hub.PushError as error:
        return _fail(error, 1)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    return 0


def _fail(error: object, status: int) -> int:
    print(f"error: {escape_controls(error, newlines=True)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
