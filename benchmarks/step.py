"""One training step of two turns against TRL's and this engine's former structure: `python -m benchmarks.step`.

A step samples two turns of every conversation, grades them, asks the reference (with kl 0.01), computes the gradient
and updates with a learning rate of 0, so every round does the same work. Three sides, on the same weights and prompts:

- ours: the engine as it is;
- former: every trajectory a row of its own, the reference asked in every step (before prompts were shared);
- trl: `GRPOTrainer` with a two-turn `rollout_func` (transformers' `generate`) and `env_mask`, its batch whole.

First the gate: on one batch of replies all three must give one loss and one gradient, else there is no ratio. Rewards
are a rule of the token ids that differs within a group, so that no advantage is 0 and no side leaves a row out; the
KL is k3, which is TRL's. Then rounds, interleaved; process CPU seconds, so a busy machine moves them little; medians
and spreads; where the time went; and the most memory a step took beyond what was resident before it (weights and the
optimiser's state are).

Last, of our own step, the matrix products of every linear layer alone, with the same shapes and weights in the same
order: their seconds over the phase's are the fraction of the matrix peak that the phase reaches. Attention's products
are not among them, so it is a lower bound.

The tables in docs/performance.md are written from the results.

Workloads: `embedded` (natural lengths), `1m` and `10m` (32 + 32 tokens), `long_prompt` (one problem with a prompt of
about 600 tokens, four samples of 32 + 32 tokens, SmolLM2-135M's shape; `--layers` of its 30) and `long_replies` (1 M
parameters, 256 + 256 tokens); for a GPU, by its name alone, `half_billion` (Qwen2.5-0.5B's shape, 256 + 256 tokens).

Above 300 lines because the three sides must do the same work, and are compared line by line.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import pages
from benchmarks.pages import PHASES
from harness.core import Example, Turn
from harness.policy import HF, engine
from harness.policy.engine import Policy
from harness.tasks.arithmetic import RETRY, Arithmetic
from verifiers.exact import Exact

SIDES: tuple[str, ...] = ("ours", "former", "trl")
DEVICE = "cpu"  # --device sets it
NEVER = -1  # no token ends a reply: lengths are fixed
LOSS_GAP, GRADIENT_GAP = 1e-4, 1e-4  # most relative differences between the sides, in float32


class Workload(NamedTuple):
    """What a step does, and how often.

    Attributes:
        problems, samples: Conversations are problems x samples.
        replies: Most tokens of each of the two replies; exactly so many, where there is a shape.
        rounds: How often every side is timed.
        shape: Of a random Llama; None is the embedded model.
        prompt: In tokens; 0 is the task's own.
    """

    name: str
    problems: int
    samples: int
    replies: int
    rounds: int
    shape: dict[str, int] | None
    prompt: int = 0


def llama(hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocabulary: int) -> dict[str, int]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": vocabulary,
        "head_dim": hidden // heads,
    }  # fmt: skip


def workloads(layers: int) -> list[Workload]:
    million, ten = llama(128, 5, 4, 4, 384, 27), llama(320, 8, 8, 8, 896, 27)
    smol = llama(576, layers, 9, 3, 1536, 49152)
    return [
        Workload("embedded", 64, 4, 32, 9, None),
        Workload("1m", 16, 4, 32, 7, million),
        Workload("10m", 4, 4, 32, 5, ten),
        Workload("long_prompt", 1, 4, 32, 2, smol, prompt=600),
        Workload("long_replies", 4, 4, 256, 3, million),
        Workload("half_billion", 4, 4, 256, 2, llama(896, 24, 14, 2, 4864, 151_936)),
    ]


class Clock:
    """Seconds by phase (`now`); what a phase inside another takes is not the outer one's."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    @property
    def current(self) -> str | None:
        return self._open[-1] if self._open else None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        time_told = now()
        if self._open:
            self.seconds[self._open[-1]] += time_told - self._since
        self._since = time_told

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return call(*args, **kwargs)

        return run


class Bench:
    """One workload with one KL coefficient, on all sides."""

    def __init__(self, work: Workload, kl: float, folder: Path, trl: bool) -> None:
        self.work, self.kl, self.clock, self.round = work, kl, Clock(), 0
        path = "embedded:arithmetic" if work.shape is None else str(model_folder(work, folder))
        self.path = HF(path=path).model_source
        self.policy = HF(path=path, max_new_tokens=work.replies, lr=0.0, kl="k3", dtype="float32").load(DEVICE)
        if work.shape is not None:
            self.policy.end_ids = [NEVER]
        self._move()
        self.task = Arithmetic(Exact())
        self.problems = self.task.train[: work.problems]
        self.chats = [self.task.chat(problem, []) for problem in self.problems]
        if work.prompt:
            self.chats = [[{"role": "user", "content": shots(self.task, work.prompt)}] for _ in self.problems]
        scorer, hidden = self.policy.scorer, self.policy.scorer.hidden_states
        scorer.hidden_states = lambda model, *rest: (  # type: ignore[method-assign]
            self.clock.timed("reference", hidden)(model, *rest) if model is scorer.reference.model
            else hidden(model, *rest)
        )  # fmt: skip
        scorer.forward = self.clock.timed("policy", scorer.forward)  # type: ignore[method-assign]
        self.trainer: Any = self._trainer(folder) if trl else None
        # The state is resident before a step's memory is measured; with a learning rate of 0 no weight moves.
        for optimizer in (self.policy.optimizer, *([self.trainer.optimizer] if self.trainer else [])):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = torch.zeros_like(p)
            optimizer.step()
            optimizer.zero_grad()

    def _move(self) -> None:
        """Away from the reference, where k3's gradient is 0."""
        torch.manual_seed(1)
        with torch.no_grad():
            for _, p in self.policy._trained():
                p += 0.02 * p.abs().mean() * torch.randn_like(p)

    # -- ours -------------------------------------------------------------------------------------------------------

    def roll(self) -> list[tuple[Turn, Turn]]:
        """Two turns of every conversation."""
        with self.clock.phase("sample"):
            session = self.policy.open(self.chats, self.work.samples, seed=self.round, temperature=1.0)
            first = session.reply()
            session.ask([RETRY] * len(first))
            return list(zip(first, session.reply(), strict=True))

    def grade(self, texts: list[tuple[str, str]], tokens: list[tuple[int, ...]]) -> list[float]:
        """Rewards of attempt 2; both attempts go through the verifier, whose verdict a rule of the tokens replaces."""
        with self.clock.phase("grade"):
            for i, pair in enumerate(texts):
                for text in pair:
                    self.task.verifier(self.problems[i // self.work.samples], text)
        return [((sum(ids) + 7 * i) % 101) / 101 for i, ids in enumerate(tokens)]

    def examples(self, rows: list[tuple[Turn, Turn]]) -> list[Example]:
        """Both turns, with attempt 2's reward less its group's mean."""
        rewards = self.grade([(a.text, b.text) for a, b in rows], [b.tokens for _, b in rows])
        size = self.work.samples
        means = [sum(rewards[i : i + size]) / size for i in range(0, len(rewards), size)]
        return [
            Example(turn, reward - means[i // size], self.kl)
            for i, (pair, reward) in enumerate(zip(rows, rewards, strict=True))
            for turn in pair
        ]

    def own_step(self) -> None:
        self.round += 1
        examples = self.examples(self.roll())
        self.policy.step(examples, len(examples) / 2)

    # -- TRL --------------------------------------------------------------------------------------------------------

    def _trainer(self, folder: Path) -> Any:
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer

        rows = self.work.problems * self.work.samples
        self.longest = 2 * self.work.replies + 64
        settings: dict[str, Any] = {
            "output_dir": str(folder / "trl"), "use_cpu": DEVICE == "cpu", "per_device_train_batch_size": rows,
            "num_generations": self.work.samples, "max_completion_length": self.longest, "beta": self.kl,
            "loss_type": "dr_grpo", "scale_rewards": "none", "steps_per_generation": 1, "learning_rate": 0.0,
            "temperature": 1.0, "gradient_checkpointing": False, "bf16": False, "report_to": "none", "max_steps": 1,
            "use_bias_correction_kl": False,  # k3 times the ratio has another gradient than k3
        }  # fmt: skip
        model: Any = AutoModelForCausalLM.from_pretrained(self.path, dtype=torch.float32)
        model.to(DEVICE)
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, reward, **_: reward,
            args=GRPOConfig(**settings),
            train_dataset=Dataset.from_dict({"prompt": ["?"] * rows}),
            processing_class=AutoTokenizer.from_pretrained(self.path, padding_side="left"),
            rollout_func=self._rollout,
        )
        trainer.current_gradient_accumulation_steps = 1
        trainer.create_optimizer()
        with torch.no_grad():
            for p, q in zip(model.parameters(), self.policy.model.parameters(), strict=True):
                p.copy_(q)
        self.given: list[tuple[Turn, Turn]] | None = None
        logps = trainer._get_per_token_logps_and_entropies

        def told(model: Any, *args: Any, **kwargs: Any) -> Any:
            with self.clock.phase("reference" if model is trainer.ref_model else "policy"):
                return logps(model, *args, **kwargs)

        trainer._get_per_token_logps_and_entropies = told
        trainer.accelerator.backward = self.clock.timed("backward", trainer.accelerator.backward)
        return trainer

    @torch.no_grad()
    def _generate(self, contexts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        policy, width, model = self.policy, max(map(len, contexts)), self.trainer.model
        ids = torch.tensor([[policy.pad_id] * (width - len(c)) + list(c) for c in contexts], device=DEVICE)
        mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=DEVICE)
        fixed = self.work.shape is not None
        settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": policy.pad_id}
        settings["eos_token_id"] = None if fixed else policy.end_ids
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=self.work.replies, **settings)
        replies = []
        for row in out[:, width:].tolist():
            end = next((i for i, token in enumerate(row) if token in policy.end_ids), len(row) - 1)
            replies.append(tuple(row[: end + 1]))
        return replies

    def _rollout(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        chat = self.policy.chat
        if self.given is None:
            with self.clock.phase("sample"):
                contexts = [tuple(chat.encode_opening(c)) for c in self.chats for _ in range(self.work.samples)]
                first = self._generate(contexts)
                follows = [tuple(chat.encode_followup(RETRY, reply)) for reply in first]
                seconds = self._generate([c + r + f for c, r, f in zip(contexts, first, follows, strict=True)])
                texts = [(chat.decode_reply(a), chat.decode_reply(b)) for a, b in zip(first, seconds, strict=True)]
        else:
            contexts, first = [a.context for a, _ in self.given], [a.tokens for a, _ in self.given]
            follows = [b.context[len(a.context) + len(a.tokens) :] for a, b in self.given]
            seconds, texts = [b.tokens for _, b in self.given], [(a.text, b.text) for a, b in self.given]
        whole = list(zip(first, follows, seconds, strict=True))
        return {
            "prompt_ids": [list(c) for c in contexts],
            "completion_ids": [[*a, *f, *b] for a, f, b in whole],
            "env_mask": [[1] * len(a) + [0] * len(f) + [1] * len(b) for a, f, b in whole],
            "logprobs": None,
            "reward": self.grade(texts, seconds),
        }

    def trl_step(self, update: bool = True) -> float:
        trainer = self.trainer
        trainer.model.train()
        rows = [{"prompt": "?"} for _ in range(self.work.problems * self.work.samples)]
        loss = trainer.training_step(trainer.model, rows, None)
        if update:
            torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
        return float(loss)

    # -- gate and race ----------------------------------------------------------------------------------------------

    def gate(self) -> dict[str, float]:
        """Relative differences of loss and gradient on one batch of our replies.

        The loss is nearly 0, as advantages are around a mean: its difference is relative to the sum of absolute terms.

        Raises:
            SystemExit: a difference is too large, so no ratio would mean anything.
        """
        rows = self.roll()
        examples = self.examples(rows)
        found, scale = {}, sum(abs(e.weight) * len(e.turn.tokens) for e in examples) / len(rows)
        for side in ("ours", "former"):
            with as_side(self.policy, side):
                stats = self.policy.accumulate_gradients(examples, len(rows))
            value = sum(e.kl * (s.kl or 0.0) - e.weight * s.tokens for e, s in zip(examples, stats, strict=True))
            grad = torch.cat([p.grad.flatten() for _, p in self.policy._trained() if p.grad is not None])
            found[side] = value / len(rows), grad.double()
            self.policy.optimizer.zero_grad()
        if self.trainer is not None:
            self.given = rows
            value = self.trl_step(update=False) * self.longest
            grads = [p.grad.flatten() for p in self.trainer.model.parameters() if p.grad is not None]
            found["trl"] = value, torch.cat(grads).double() * self.longest
            self.trainer.optimizer.zero_grad()
            self.given = None
        (loss, grad), gaps = found["former"], {}
        for side in found.keys() - {"former"}:
            gaps[f"loss of {side}"] = abs(found[side][0] - loss) / scale
            gaps[f"gradient of {side}"] = float((found[side][1] - grad).norm() / grad.norm())
        for what, gap in gaps.items():
            if not gap <= (LOSS_GAP if what.startswith("loss") else GRADIENT_GAP):
                raise SystemExit(f"{self.work.name}, kl {self.kl}: {what} differs by {gap:.2g}: no ratio")
        return gaps

    def race(self, rounds: int) -> dict[str, Any]:
        """Medians of all sides over so many rounds, and what our phases reach of the matrix peak."""
        sides = SIDES if self.trainer is not None else SIDES[:2]
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        phases: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        memory: dict[str, float] = {}
        for number in range(rounds + 1):  # the first one warms up, and is measured for memory
            for side in sides if number % 2 else reversed(sides):
                self.clock.seconds = dict.fromkeys(PHASES, 0.0)
                resident = settle() if number == 0 else 0
                begin = now()
                with as_side(self.policy, side), timed_backward(self.clock, side):
                    self.trl_step() if side == "trl" else self.own_step()
                spent = now() - begin
                if number == 0:
                    memory[side] = (peak() - resident) / 1024
                    continue
                self.clock.seconds["other"] = spent - sum(self.clock.seconds.values())
                seconds[side].append(spent)
                phases[side].append(dict(self.clock.seconds))
        result: dict[str, Any] = {
            side: {
                "cpu_s": statistics.median(seconds[side]),
                "cpu_s_all": [round(s, 3) for s in seconds[side]],
                "peak_mb": round(memory[side], 1),
                "phases": {name: statistics.median(p[name] for p in phases[side]) for name in PHASES},
            }
            for side in sides
        }
        for other in sides[1:]:
            ratios = sorted(b / a for a, b in zip(seconds["ours"], seconds[other], strict=True))
            result[other]["ratio"] = [statistics.median(ratios), ratios[0], ratios[-1]]
        result["ours"]["products"] = self._measure_products(result["ours"]["phases"])
        return result

    def _measure_products(self, phases: dict[str, float]) -> dict[str, dict[str, float]]:
        """The matrix products of our step's linear layers alone, by phase.

        Returns:
            For each phase that has any: `operations` (multiplications and additions), CPU seconds `alone`, and the
            `fraction` of the phase's seconds that this is.
        """
        calls: dict[str, list[tuple[Any, int]]] = {name: [] for name in PHASES}

        def note(module: Any, inputs: Any, _: Any) -> None:
            if isinstance(module, torch.nn.Linear) and self.clock.current:
                calls[self.clock.current].append((module.weight.detach(), inputs[0].shape[:-1].numel()))
                if self.clock.current == "policy" and torch.is_grad_enabled():
                    calls["backward"].append(calls["policy"][-1])

        handle = torch.nn.modules.module.register_module_forward_hook(note)
        try:
            with as_side(self.policy, "ours"):
                self.own_step()
        finally:
            handle.remove()
        return {
            name: {
                "operations": sum((4.0 if name == "backward" else 2.0) * rows * w.numel() for w, rows in found),
                "alone": (alone := min(time_products(found, name == "backward") for _ in range(2))),
                "fraction": alone / phases[name],
            }
            for name, found in calls.items()
            if found
        }


@torch.no_grad()
def time_products(calls: list[tuple[torch.Tensor, int]], backward: bool) -> float:
    """Seconds of x W^T for each weight [m, n] and x of so many rows; backward's two products if asked."""
    given = {}
    for weight, rows in calls:
        for size in weight.shape:
            given[rows, size] = torch.ones(rows, size, device=weight.device)
    begin = now()
    for weight, rows in calls:
        to, of = weight.shape
        if backward:
            torch.mm(given[rows, to], weight)
            torch.mm(given[rows, to].T, given[rows, of])
        else:
            torch.nn.functional.linear(given[rows, of], weight)
    return now() - begin


@contextmanager
def as_side(policy: Policy, side: str) -> Iterator[None]:
    """The policy as it is, or in its former structure."""
    shares, every = policy.shares_prompts, engine.KL_EVERY
    if side == "former":
        policy.shares_prompts, engine.KL_EVERY = False, 1
    elif side == "ours":
        engine.KL_EVERY = 1 << 30
    try:
        yield
    finally:
        policy.shares_prompts, engine.KL_EVERY = shares, every


@contextmanager
def timed_backward(clock: Clock, side: str) -> Iterator[None]:
    backward = torch.Tensor.backward
    if side != "trl":
        torch.Tensor.backward = clock.timed("backward", backward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]


def status(name: str) -> int:
    """A line of this process's memory account, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def now() -> float:
    """Seconds on the clock that fits the device: the process's on a CPU, the wall's on a GPU."""
    if DEVICE == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak() -> float:
    """The most memory in use since `settle`, in KiB."""
    return status("VmHWM") if DEVICE == "cpu" else torch.cuda.max_memory_allocated() / 1024


def settle() -> float:
    """Gives free memory back, begins the peak anew, and returns what is in use, in KiB."""
    gc.collect()
    if DEVICE != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1024
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def shots(task: Arithmetic, tokens: int) -> str:
    """A prompt of about so many tokens (characters, for this tokenizer), of worked examples."""
    text = ""
    for problem in task.test:
        text += f"{problem.prompt} {problem.answer}\n"
        if len(text) >= tokens - 10:
            break
    return text[: tokens - 10]


def model_folder(work: Workload, folder: Path) -> Path:
    """A random Llama with the embedded model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    where = folder / work.name
    if not where.exists():
        tokenizer = AutoTokenizer.from_pretrained(HF().model_source)
        torch.manual_seed(0)
        shape: dict[str, Any] = dict(work.shape or {})
        config = LlamaConfig(
            **shape, max_position_embeddings=2048, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=True,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(where)
        tokenizer.save_pretrained(where)
    return where


def measure(work: Workload, kl: float, folder: Path, has_trl: bool, rounds: int) -> dict[str, Any]:
    """What is told of one workload with one KL coefficient; its models are gone afterwards."""
    bench = Bench(work, kl, folder, has_trl)
    item: dict[str, Any] = {"workload": work.name, "kl": kl, "gate": bench.gate(), "load": os.getloadavg()[0]}
    item |= {"work": work._asdict() | {"rounds": rounds}, "sides": bench.race(rounds)}
    del bench
    gc.collect()
    return item


def main() -> None:
    names = [work.name for work in workloads(30)]
    global DEVICE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[*names, []], default=names[:-1])
    parser.add_argument("--rounds", type=int, help="of every workload; each has its own number else")
    parser.add_argument("--kl", type=float, nargs="+", default=[0.0, 0.01])
    parser.add_argument("--layers", type=int, default=30, help="of long_prompt's model, 30 in SmolLM2-135M")
    parser.add_argument("--out", type=Path, default=pages.RESULTS / "step.json")
    parser.add_argument("--device", default=DEVICE, help="cpu (CPU seconds, default), or cuda (seconds of the wall)")
    args = parser.parse_args()
    DEVICE = args.device
    warnings.simplefilter("ignore")
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    torch.set_num_threads(1)
    has_trl = bool(pages.describe_machine()["versions"]["trl"])
    if not has_trl:
        print("TRL is not installed (pip install -e '.[dev]'): ours against our former structure alone")
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for work in workloads(args.layers):
            for kl in args.kl if work.name in args.workloads else ():
                found.append(measure(work, kl, Path(folder), has_trl, args.rounds or work.rounds))
                args.out.write_text(json.dumps({**pages.describe_machine(DEVICE), "results": found}, indent=1) + "\n")
    print(pages.describe_step(json.loads(args.out.read_text())))
    if args.out == pages.RESULTS / "step.json":
        pages.fill_page()


if __name__ == "__main__":
    main()
