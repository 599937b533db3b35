# Everything goes into .venv, from PyPI; the extension is built by pip (setup.py).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test slow lint bench experiments gpu-check sanitize docs clean

help:
	@echo "make demo       set up, then compare strategies on real data (two minutes)"
	@echo "make test       set up, then run the tests"
	@echo "make slow       the tests that make test leaves out"
	@echo "make lint       ruff, mypy --strict and the walls between the packages"
	@echo "make bench      time the kernels beside their peers, plot, and write docs/benchmarks.md (20 minutes at most)"
	@echo "make experiments"
	@echo "                run experiments/*.toml, or go on with them, and write docs/experiments.md (three hours on two cores);"
	@echo "                POOLWRIGHT_DATA is the folder of the data (data), EXPERIMENT_ARGS options of run (--jobs 2)"
	@echo "make gpu-check  on a machine with a GPU: build, GPU tests, GPU benchmarks"
	@echo "make sanitize   the kernels' CPU code under address, undefined-behavior and thread sanitizers"
	@echo "make docs       build the site into site/"
	@echo "make clean      remove the environment and everything built"

# One stamp a set of packages; what the extension and the package's metadata are made from makes it stale.
SOURCES := pyproject.toml setup.py $(shell find csrc -type f)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Poolwright needs Python 3.10 or newer; say which with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --editable '.[faiss]'
	@touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[faiss,test,rl,deit]'
	@touch $@

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/poolwright run

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m "not slow and not gpu" $(PYTEST_ARGS)

slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Peers are optional: one that cannot be installed is named in the tables.
PEERS := benchmarks/requirements-peers.txt
$(VENV)/.peers-installed: $(VENV)/.installed $(PEERS)
	@sed -e 's/ *#.*//' -e '/^$$/d' $(PEERS) | while read -r peer; do \
	    $(BIN)/python -m pip install --quiet "$$peer" || echo "bench: $$peer cannot be installed here"; done
	@touch $@

bench: $(VENV)/.peers-installed
	$(BIN)/poolwright bench --sweep --json --plot --seconds 1150 $(BENCH_ARGS)
	$(BIN)/python -m poolwright_benchmarks.page

# Each may be stopped, and goes on when it is called again.
POOLWRIGHT_DATA ?= data
EXPERIMENT_ARGS ?= --jobs 2
EXPERIMENTS := $(notdir $(basename $(wildcard experiments/*.toml)))
experiments: $(VENV)/.installed
	@set -e; for name in $(filter-out abas-ral-digits,$(EXPERIMENTS)); do \
	    $(BIN)/poolwright run experiments/$$name.toml --set dataset.root="$(POOLWRIGHT_DATA)" --out runs/$$name --resume \
	        $(EXPERIMENT_ARGS); \
	    $(BIN)/poolwright report runs/$$name --json experiments/results/$$name.json; \
	done
	@set -e; policy=runs/abas-ral-digits.policy; mkdir -p runs; test -f $$policy || \
	    $(BIN)/poolwright train-policy experiments/abas-ral-digits.toml --strategy abas-ral --out $$policy; \
	$(BIN)/poolwright run experiments/abas-ral-digits.toml --set abas-ral.policy=$$policy \
	    --set "abas-ral, to the end.policy=$$policy" --out runs/abas-ral-digits --resume $(EXPERIMENT_ARGS); \
	$(BIN)/poolwright report runs/abas-ral-digits --json experiments/results/abas-ral-digits.json
	$(BIN)/python experiments/page.py

# Runs on bare machines too, with the torch that they have: builds in place and needs no network.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
gpu-check:
	@$(GPU_PYTHON) benchmarks/gpu_check.py

# GCC's; the extension is built aside, under build/.
sanitize: $(VENV)/.test-installed
	$(BIN)/python -m pip install --quiet 'pybind11>=2.13'
	$(BIN)/python tests/sanitize/run.py

docs: $(VENV)/.docs-installed
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) build dist site engine/poolwright.egg-info engine/poolwright/kernels/_native*.so
