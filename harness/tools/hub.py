"""Publishing on the Hugging Face hub: a run's model with a model card, or a results folder as a dataset.

The cards are made of run.json, config.gin and the leaderboard's tables, so they say nothing that the files do not.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    DatasetCard,
    DatasetCardData,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
)
from huggingface_hub.errors import HFValidationError

from harness.analysis import frames, leaderboard, tables
from harness.runs import reader
from harness.runs.reader import Run

FILES = ("run.json", "config.gin", "metrics.jsonl")  # beside the model; eval.jsonl holds the benchmark's problems
CARD = "README.md"  # ours; peft writes one of its own into an adapter's folder
FRAMES = ("runs", "updates", "attempts")


class PushError(RuntimeError):
    """The hub refused or could not be reached; nothing was committed."""


def push_model(folder: Path, repository: str, *, public: bool = False) -> str:
    """Uploads a run's `model/` with a model card, run.json, config.gin and metrics.jsonl, in one commit.

    eval.jsonl stays here: it holds a benchmark's problems, which do not belong into the pages models are trained on.

    Args:
        folder: A finished run's folder, `.../<name>/seed<k>`.
        repository: `user/name` on the hub; made where there is none.
        public: Whether a repository that is made now can be seen by everybody.

    Returns:
        The commit's address.

    Raises:
        ValueError: no finished run there, or it has no model.
        PushError: the hub refused, or could not be reached.
    """
    run = find_run(folder)
    models = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    if not models:
        raise ValueError(f"{folder} holds no model/: an untrained row has none, and tracked results leave it out")
    named = [(path.relative_to(folder / "model").as_posix(), _published(path, run.model_name)) for path in models]
    named = [(name, content) for name, content in named if name != CARD]
    named += [(name, folder / name) for name in FILES if (folder / name).exists()]
    card = make_model_card(run)
    return _commit(repository, "model", public, card, named, f"{run.name}, seed {run.seed}")


def push_results(folder: Path, repository: str, *, public: bool = False) -> str:
    """Uploads the frames of all finished runs as Parquet, with a dataset card; `datasets.load_dataset` reads it.

    Args:
        folder: A results folder.
        repository: `user/name` on the hub; made where there is none.
        public: Whether a repository that is made now can be seen by everybody.

    Returns:
        The commit's address.

    Raises:
        ValueError: no finished run there.
        FileNotFoundError: no such folder.
        PushError: the hub refused, or could not be reached.
    """
    results = frames.load_frames(folder)
    if results.runs.empty:
        raise ValueError(f"{folder} holds no finished run")
    with tempfile.TemporaryDirectory() as made:
        named = [(path.name, path) for path in results.to_parquet(made)]
        return _commit(repository, "dataset", public, make_dataset_card(folder), named, f"Results of {folder.name}")


def find_run(folder: Path) -> Run:
    """The finished run of a run's folder.

    Raises:
        ValueError: there is none, or more than one below it.
        FileNotFoundError: no such folder.
    """
    runs, troubles = reader.read_runs(folder)
    if len(runs) != 1 or runs[0].path.resolve() != folder.resolve():
        why = "; ".join(trouble.message for trouble in troubles)
        raise ValueError(f"{folder} is not the folder of one finished run{f': {why}' if why else ''}")
    return runs[0]


def make_model_card(run: Run) -> str:
    """The model card of a run: what was trained, the tables of its evaluations with intervals, how to do it again."""
    info, spent = run.info, run.info["spent"]
    greedy = [e for e in run.final_evaluations if e.key.is_main]
    measured = [
        EvalResult(
            task_type="text-generation", task_name="self-correction", dataset_type=e.key.task, dataset_name=e.key.task,
            dataset_split="test", metric_type="accuracy", metric_name=name, metric_value=round(value, 4),
        )
        for e in greedy
        for name, value in (("Acc@t1", e.summary["acc"][0]), (f"Acc@t{e.key.turns}", e.summary["acc"][-1]))
    ]  # fmt: skip
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["score-harness", "self-correction", run.name],
        base_model=_hub_name(run.model_name),
        model_name=f"{run.name} (seed {run.seed})",
        eval_results=measured or None,
    )
    about = [
        ("row", run.name),
        ("seed", run.seed),
        ("base model", run.model_name),
        ("trained on", f"{run.task} (version {info['task_version']})"),
        ("updates", spent["updates"]),
        ("sampled responses", spent.get("responses", "not recorded")),
        ("code", info.get("commit") or "no commit recorded"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(info.get("versions", {}).items()))),
    ]
    text = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {run.name}, seed {run.seed}\n",
        "Trained by score-harness, which asks which training method teaches a language model to correct itself. The "
        "model answers, reads a request to check its answer, and answers again: Acc@t1 and Acc@t2 are the shares of "
        "right answers.\n",
        "| | |\n| --- | --- |",
        *(f"| {name} | {tables.escape_markdown(str(value))} |" for name, value in about),
        "",
        _tables(run.path),
        "\n## Again\n",
        "`config.gin` in this repository holds every setting in force:\n",
        f"```\npython -m harness.run --gin config.gin --seed {run.seed}\n```\n",
        "On another kind of CPU or GPU a seed is another draw of the same noise. One seed says nothing about the noise "
        "of training.",
    ]
    return ModelCard("\n".join(text)).content


def make_dataset_card(folder: Path) -> str:
    """The dataset card of a results folder: one configuration a frame, and the leaderboard's tables."""
    data = DatasetCardData(
        tags=["score-harness", "self-correction"],
        configs=[{"config_name": name, "data_files": f"{name}.parquet", "default": name == "runs"} for name in FRAMES],
    )
    text = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {folder.resolve().name}\n",
        "Results of score-harness: `runs` has a line per evaluation of a run, `updates` one per update and logged "
        "quantity, `attempts` one per attempt of the model. Read with `datasets.load_dataset(NAME, 'attempts')`.\n",
        _tables(folder),
    ]
    return DatasetCard("\n".join(text)).content


def _tables(folder: Path) -> str:
    board = leaderboard.build_board(folder)
    return tables.render_markdown(dataclasses.replace(board, paper={**board.paper, "tables": []}))


def _hub_name(model: str) -> str | None:
    """The model's name on the hub; None where it came from a folder or out of this package."""
    parts = model.split("@")[0].split("/")
    return "/".join(parts) if len(parts) == 2 and all(parts) and ":" not in model else None


def _published(path: Path, model: str) -> Path | bytes:
    """A model's file as others get it: an adapter names its base as the run does, not by a folder of this machine."""
    if path.name != "adapter_config.json":
        return path
    settings = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": _hub_name(model) or model}
    return json.dumps(settings, indent=2, sort_keys=True).encode()


def _commit(
    repository: str, kind: str, public: bool, card: str, named: Sequence[tuple[str, Path | bytes]], message: str
) -> str:
    operations = [CommitOperationAdd(CARD, card.encode())]
    operations += [CommitOperationAdd(name, content) for name, content in named]
    try:
        api = HfApi()
        api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        return api.create_commit(repository, operations, commit_message=message, repo_type=kind).commit_url
    except HFValidationError as error:
        raise ValueError(f"{repository!r} is no name of a repository: {error}") from error
    except Exception as error:  # of the HTTP library below, which is another one in other versions
        raise PushError(f"nothing was committed to {repository}: {type(error).__name__}: {error}") from error
