# Two commands are enough: make first-run, make test.
PYTHON ?= python3
BIN := .venv/bin
# Each test takes one thread: a file on each core, so that what its tests share is made once.
AT_ONCE := -n auto --maxprocesses 8 --dist loadfile
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help

help: ## lists what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: .venv/installed ## makes .venv and installs the tested versions

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "error: PYTHON must be 3.11 or later, got %s.%s; try make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

first-run: install ## trains LoRA on the embedded model and shows what it gained, cost and forgot
	$(BIN)/python train.py method=lora data=sentiment

test: install ## runs the fast tests (CPU, offline)
	$(BIN)/python -m pytest $(AT_ONCE)

test-slow: install ## runs the slow tests, and those that need ../shared where it is there
	$(BIN)/python -m pytest $(AT_ONCE) --no-loadscope-reorder -m 'slow or real'

test-slurm: install ## runs the tests that need a Slurm, which it starts on this machine and stops (Debian, as root)
	tests/with_slurm.sh .slurm $(BIN)/python -m pytest -m slurm

bench-env: .venv-bench/installed .venv-bench-litgpt/installed ## makes environments of the peers we are measured against

.venv-bench/installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt --editable . -r benchmarks/requirements.txt
	@touch $@

.venv-bench-litgpt/installed: benchmarks/requirements-litgpt.txt
	$(PYTHON) -m venv .venv-bench-litgpt
	.venv-bench-litgpt/bin/python -m pip install --quiet -r benchmarks/requirements-litgpt.txt
	@touch $@

BENCH ?=
bench: bench-env ## measures training speed beside peers; BENCH="--json FILE --settings ..."
	.venv-bench/bin/python -m benchmarks.train_speed $(BENCH)
	.venv-bench/bin/python -m benchmarks.plan_speed

bench-gpu: bench-env ## the same on a GPU, at larger shapes, with Liger's kernels
	.venv-bench/bin/python -m pip install --quiet liger-kernel
	.venv-bench/bin/python -m benchmarks.train_speed $(BENCH)

test-gpu: install ## runs the tests that need a GPU
	@$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "error: make test-gpu must have a CUDA device, got none that torch finds; no test ran")'
	$(BIN)/python -m pytest -m gpu

ONLY ?=
capabilities: install ## tries what works with what, for docs/capabilities.md; ONLY=lora,dora tries those rows
	$(BIN)/python -m capabilities $(if $(ONLY),--only $(ONLY))

check: install ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## formats the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## removes .venv and caches; runs in outputs/ stay
	rm -rf .venv .venv-bench .venv-bench-litgpt .mypy_cache .ruff_cache .pytest_cache dist

.PHONY: help install first-run test test-slow test-gpu test-slurm bench-env bench bench-gpu capabilities check format clean
