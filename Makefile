# Every target does its own set-up and is safe to run again. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Relative paths throughout: the folder of the project may have spaces in its name.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.estudio-ready
CODE := estudio_core lightning_modules dags plugins benchmarks tests scripts

# Chosen by scripts/setup.sh where it is empty: the first of python3.11, 3.12, 3.13, python3 that is new enough.
PYTHON ?=
# Optional extras of pyproject.toml, with commas: make setup EXTRAS=s3,gpu
EXTRAS ?=
# Test processes side by side, each with one thread and up to 2 GiB of memory.
TEST_WORKERS ?= 2
export PYTHON EXTRAS
# Compiled modules are kept: without them every process, each Airflow task too, compiles torch, MLflow and transformers
# anew, 20 s of a core instead of 7. Containers often forbid them to keep images small.
unexport PYTHONDONTWRITEBYTECODE
export TOKENIZERS_PARALLELISM := false

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(READY): requirements.lock pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh

.PHONY: setup
setup: $(READY) ## Virtual environment with the locked dependencies (PYTHON=, EXTRAS=, TORCH_BACKEND=)
	@$(if $(EXTRAS)$(TORCH_BACKEND),bash scripts/setup.sh,echo "$(VENV) is ready.")

.PHONY: demo
demo: $(READY) ## Fine-tune, re-index and search a real catalog through Airflow; ends with a before/after report
	@HF_HUB_OFFLINE=1 $(VENV)/bin/estudio demo

.PHONY: up
up: $(READY) ## Start Airflow, MLflow, Triton, the service and the database on this machine and show their addresses
	@$(VENV)/bin/estudio up

.PHONY: down
down: $(READY) ## Stop everything that `make up` or `make demo` started
	@$(VENV)/bin/estudio down

.PHONY: triton
triton: $(READY) ## Start a Triton server on this machine over triton_repo/ (first: 500 MB into .venv-triton); stop: make triton-stop
	@$(PY) -m estudio_core.local.triton start

.PHONY: triton-stop
triton-stop: $(READY) ## Stop the server that `make triton` or `make up` started
	@$(PY) -m estudio_core.local.triton stop

.PHONY: test
test: $(READY) ## Run all tests but those of `make proof` (TEST_WORKERS=: processes side by side, 2 unless given)
	@HF_HUB_OFFLINE=1 $(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: proof
proof: $(READY) ## Airflow and MLflow in a browser, killed tasks and scheduler, aliases, experiments, releases and service under fire, memory of training
	@HF_HUB_OFFLINE=1 $(PY) -m pytest -m "proof or not proof" tests/running tests/chaos/test_drill.py tests/chaos/test_online.py \
		tests/lightning_modules/test_memory.py tests/benchmarks/test_index.py
	@HF_HUB_OFFLINE=1 FUZZ_EXAMPLES=100 $(PY) -m pytest tests/service/test_fuzzing.py

.PHONY: proof-hosts
proof-hosts: $(READY) ## Several hosts as network namespaces, cut off and back in the middle (root, iproute2, moto_server)
	@HF_HUB_OFFLINE=1 $(PY) -m pytest -m "proof or not proof" -rs -s tests/hosts

.PHONY: chaos
chaos: $(READY) ## Kill builder, servers and tasks at every point of a release under traffic; a tally (ARGS="--seed 2")
	@HF_HUB_OFFLINE=1 $(PY) -m tests.chaos $(ARGS)

.PHONY: bench-quality
bench-quality: $(READY) ## How well it ranks after learning, with words and without, beside BM25 and other trainers (QUICK=1, ARGS=)
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.quality $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-learning-curve
bench-learning-curve: $(READY) ## Gain of the served ranking by simulated sessions, 1 to 100 thousand (QUICK=1, ARGS=); resumable
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.learning_curve $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-bias
bench-bias: $(READY) ## How well attention is recovered from logs whose truth is known, and what weights make of clicks (ARGS=--quick)
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.position_bias $(ARGS)

.PHONY: bench-gate
bench-gate: $(READY) ## How often clicks alone call a candidate better, by click model and number of sessions (QUICK=1, ARGS=); resumable
	@$(PY) -m benchmarks.gate $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-clickstream
bench-clickstream: $(READY) ## Seconds and memory of extraction, preparation and weighing, up to 10 million sessions (QUICK=1, ARGS=); resumable
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.clickstream $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-experiments
bench-experiments: $(READY) ## Verdicts of experiments with simulated users, and what an A/B test would need (QUICK=1, ARGS=); resumable
	@$(PY) -m benchmarks.experiments $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-service
bench-service: $(READY) ## What HTTP costs: searches, collecting, mixed load, beside in process, SQL, a bare route (QUICK=1, ARGS=)
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.service $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-training
bench-training: $(READY) ## Training speed against others, into benchmarks/results (QUICK=1, ARGS="--sessions 1000"); resumable
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.training $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-index
bench-index: $(READY) ## Speed of indexing and search against what one writes by hand (QUICK=1, ARGS="--sizes 20000"); resumable
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.index $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-build
bench-build: $(READY) ## A large build with kills on the way, and searches with filters in it (ARGS="--items 1000000"); resumable
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.builds $(ARGS)

.PHONY: bench-orchestration
bench-orchestration: $(READY) ## Seconds from a moved alias to its release, from a trigger to the first task, between steps (QUICK=1, ARGS=)
	@HF_HUB_OFFLINE=1 $(PY) -m benchmarks.orchestration $(if $(QUICK),--quick) $(ARGS)

.PHONY: docs
docs: $(READY) ## Build the documentation into build/docs
	@$(PY) -m mkdocs build --strict --quiet

.PHONY: lint
lint: $(READY) ## Style, format, types and the direction of imports
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check $(CODE)
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

.PHONY: format
format: $(READY) ## Format the code and mend what the linter can mend
	@$(PY) -m ruff format $(CODE)
	@$(PY) -m ruff check --fix $(CODE)

.PHONY: lock
lock: $(READY) ## Resolve the dependencies anew into requirements.lock
	@bash scripts/lock.sh

.PHONY: clean
clean: ## Remove caches and build outputs (local state and the virtual environment stay)
	@rm -rf build dist test-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
