"""The one command `score-harness` (or `python -m harness`): its subcommands hand their words to the modules.

A module is imported when its subcommand is called, so that looking around stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import harness
from harness.terminal import describe_broken_plugin, escape_controls

if TYPE_CHECKING:
    from harness.registry import Entry

COMMANDS = {
    "run": ("harness.run", "train and evaluate one row"),
    "suite": ("harness.suite", "run rows x seeds, and go on with what is not done"),
    "tune": ("harness.tune", "the same trials for every row on validation problems, and the values they pick"),
    "evaluate": ("harness.evaluate", "add evaluations to a run that is done"),
    "verify": ("harness.verify", "grade the saved answers of runs again and compare"),
    "leaderboard": ("harness.leaderboard", "the tables of a results folder"),
    "plots": ("harness.plots", "the figures of a results folder"),
    "scaling": ("harness.scaling", "parallel samples against corrections, at equal numbers of answers"),
    "report": ("harness.report", "one HTML page: tables, figures, trajectories"),
    "mechanism": ("harness.mechanism", "whether the second attempt reads the first"),
    "same": ("harness.same", "whether two rows are the same gradient"),
    "push": ("harness.push", "upload a run's model, or results, to the Hugging Face hub, with a card"),
    "archive": ("harness.archive", "a results folder as one file that readers take, and back"),
    "import": ("harness.import_", "make runs of trajectories of TRL, verl, inspect_ai or your own"),
    "export": ("harness.export", "write a run for inspect_ai or lighteval"),
    "check": ("verifiers.check", "grade any outputs from a file"),
    "list": ("", "all names that a gin file can use, and all rows"),
    "completion": ("", "the script that completes on the Tab key, for bash or zsh"),
    "describe": ("", "parameters, defaults and documentation of a name, such as method.score"),
}
ALIASES = {"board": "leaderboard"}
RUN_EXAMPLES = """examples:
  {prog} score_full                                              SCoRe on the embedded model and task
  {prog} naive_multi_turn_rl --seed 1                            another row, another seed
  {prog} score_full --name short --steps 20 --limit 100          20 updates, 100 test problems
  {prog} score_full embedded_code                                a file of gin/task/ after the row
  {prog} score_full math paper_math gpu --model Qwen/Qwen2.5-1.5B-Instruct   task, protocol, machine and model
"""

COMPLETION = r"""# score-harness: eval "$(score-harness completion bash)"
_score_harness() {
    local word="${COMP_WORDS[COMP_CWORD]}" words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="@COMMANDS@"
    elif [ "${word:0:1}" = - ]; then
        words="$("${COMP_WORDS[0]}" "${COMP_WORDS[1]}" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]+' | sort -u)"
    else
        case "${COMP_WORDS[1]}" in
            run|tune) words="@ROWS@" ;;
            describe) words="@NAMES@" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _score_harness score-harness
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"  # zsh reads bash's completions through this


def main(argv: Sequence[str] | None = None, prog: str = "score-harness") -> int:
    """Runs one subcommand; returns its exit status, 2 where there is none of that name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage(prog), end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(f"score-harness {harness.__version__}")
        return 0
    name, rest = ALIASES.get(words[0], words[0]), words[1:]
    if name not in COMMANDS:
        if name.startswith("-"):
            return _mistake(f"options come after a subcommand: {prog} run {' '.join(words)}; {prog} --help lists them")
        from harness.registry import nearest_hint

        near = nearest_hint(name, [*COMMANDS, *ALIASES])
        return _mistake(f"no subcommand {name!r}{near}; {prog} --help lists them")
    own = {"run": _run, "list": _list, "describe": _describe, "completion": _completion}.get(name)
    title = f"{prog} {words[0]}"
    return own(rest, title) if own else importlib.import_module(COMMANDS[name][0]).main(rest, prog=title)


def _usage(prog: str) -> str:
    lines = "\n".join(f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: {prog} SUBCOMMAND ...\n       {prog} --version\n\n"
        "Which training method teaches a language model to correct itself? Runs the methods and compares them.\n\n"
        f"subcommands:\n{lines}\n\n`board` is short for `leaderboard`. {prog} SUBCOMMAND --help has the rest.\n"
    )


def _mistake(message: str) -> int:
    print(f"error: {escape_controls(message, newlines=True)}", file=sys.stderr)
    return 2


def _run(words: Sequence[str], prog: str) -> int:
    """`harness.run` with row names as words, and options for the bindings that most people set."""
    from harness import config, run

    parser = run.make_parser(prog)
    parser.epilog = RUN_EXAMPLES.format(prog=prog)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="name of a gin file, the row's first; before any --gin")
    parser.add_argument("--name", help="short for --bind run.name=NAME")
    parser.add_argument("--steps", type=int, metavar="N", help="short for --bind run.steps=N")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="evaluate on the first N test problems, where a task can"
    )
    args = parser.parse_intermixed_args(words)
    args.gin = [*args.rows, *args.gin]
    args.bind += [f"{config.MODEL} = {args.model!r}"] if args.model is not None else []
    args.model = None
    args.bind += [f"run.name = {args.name!r}"] if args.name is not None else []
    args.bind += [f"run.steps = {args.steps}"] if args.steps is not None else []
    if args.limit is not None and args.gin:
        try:
            args.bind += _limits(args.gin, args.bind, args.limit)
        except config.ConfigError as error:
            return _mistake(str(error))
    return run.start_run(parser, args)


def _limits(files: Sequence[str], bindings: Sequence[str], limit: int) -> list[str]:
    """The bindings that give every evaluation task `limit` test problems.

    Raises:
        ConfigError: a task has no `test_size`, or the files cannot be read.
    """
    from harness import config, registry
    from harness.training.experiment import Experiment

    config.prepare_gin(Experiment, "run")
    config.parse_gin(files, bindings)
    found = []
    for name in config.referred_names("run.eval_tasks") or config.referred_names("run.task"):
        short = name.rpartition(".")[2]
        try:
            build = registry.get_entry("task", short).build
        except registry.UnknownName as error:
            raise config.ConfigError(str(error)) from error
        if "test_size" not in inspect.signature(build).parameters:
            having = [
                e.name for e in registry.list_entries("task") if "test_size" in inspect.signature(e.build).parameters
            ]
            raise config.ConfigError(
                f"--limit: task.{short} has no test_size, so it is always evaluated on its whole test split "
                f"(tasks that have one: {', '.join(having)})"
            )
        found.append(f"{short}.test_size = {limit}")
    return found


def _list(words: Sequence[str], prog: str) -> int:
    parser = argparse.ArgumentParser(prog=prog, description="Lists the registered names and the gin files.")
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help="method, task, verifier, row, suite, ... (default: all)"
    )
    kinds = parser.parse_args(words).kinds
    from harness import config, run
    from harness.training.experiment import Experiment

    try:
        for plugin, error in config.prepare_gin(Experiment, "run").items():
            print(describe_broken_plugin(plugin, error), file=sys.stderr)
        run.print_names(kinds)
    except config.ConfigError as error:
        return _mistake(str(error))
    return 0


def _describe(words: Sequence[str], prog: str) -> int:
    parser = argparse.ArgumentParser(
        prog=prog, description="Prints the parameters, their defaults and the documentation of registered names."
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="method.score, hf, run, Qwen/Qwen3-4B, ...")
    names = parser.parse_args(words).names
    from harness import config, registry
    from harness.training.experiment import Experiment

    try:
        for plugin, error in config.prepare_gin(Experiment, "run").items():
            print(describe_broken_plugin(plugin, error), file=sys.stderr)
    except config.ConfigError as error:
        return _mistake(str(error))
    entries = [*registry.list_entries(), registry.Entry("", "run", Experiment)]
    told = []
    for name in names:
        found = [e for e in entries if name in (e.name, f"{e.kind}.{e.name}")]
        if not found and (settings := _model_settings(name)):
            told.append(settings)
            continue
        if not found:
            known = [e.name for e in entries] + [f"{e.kind}.{e.name}" for e in entries if e.kind]
            rows = [path.stem for folder in config.FOLDERS for path in (config.GIN_HOME / folder).glob("*.gin")]
            if name in rows:
                return _mistake(f"{name!r} is a gin file, not a registered name: run ROW --print-config shows it")
            return _mistake(f"no registered name {name!r}{registry.nearest_hint(name, known)}")
        told += [_told(entry) for entry in found]
    print("\n\n".join(told))
    return 0


def _completion(words: Sequence[str], prog: str) -> int:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Prints the script that completes subcommands, rows, options and names on the Tab key.",
        epilog=f'put  eval "$({prog} bash)"  into ~/.bashrc (zsh: the same with zsh, into ~/.zshrc)',
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    shell = parser.parse_args(words).shell
    from harness import config, registry
    from harness.training.experiment import Experiment

    config.prepare_gin(Experiment, "run")
    entries = list(registry.list_entries())
    rows = {path.stem for folder in config.FOLDERS for path in (config.GIN_HOME / folder).glob("*.gin")}
    names = {entry.name for entry in entries} | {f"{entry.kind}.{entry.name}" for entry in entries}
    script = COMPLETION
    for place, found in (("COMMANDS", {*COMMANDS, *ALIASES}), ("ROWS", rows), ("NAMES", names)):
        script = script.replace(f"@{place}@", " ".join(sorted(found)))
    sys.stdout.write((ZSH if shell == "zsh" else "") + script)
    return 0


def _model_settings(name: str) -> str:
    """The settings that harness.policy.known_models has for a model, as bindings; '' for one that it does not know."""
    from harness.policy.known_models import find_settings

    settings = [f"  hf.{key} = {value!r}" for key, value in find_settings(name).items()]
    return (
        "\n".join([f"{name}   a known model (harness/policy/known_models.py)", "", "settings:", *settings])
        if settings
        else ""
    )


def _told(entry: Entry) -> str:
    """An entry as text: its name and source, its documentation, and one line a parameter, as a gin file binds it."""
    name = f"{entry.kind}.{entry.name}" if entry.kind else entry.name
    lines = [f"{name}   from {entry.source}", "", inspect.getdoc(entry.build) or "", "", "parameters:"]
    parameters = inspect.signature(entry.build).parameters.values()
    for parameter in parameters:
        given = parameter.annotation  # a text where the module postpones its annotations
        annotation = given if isinstance(given, str) else inspect.formatannotation(given)
        kind = "" if parameter.annotation is parameter.empty else f": {annotation}"
        value = "   (must be bound)" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        lines.append(f"  {entry.name}.{parameter.name}{kind}{value}")
    return escape_controls("\n".join(lines + ([] if parameters else ["  none"])), newlines=True)
