# Needs only python3 (>= 3.11) with venv. CONSTRAINTS=/dev/null lifts the pins (on a machine with a GPU, say).
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: help setup demo test test-all lint format bench bench-full docs clean
help:
	@echo "make demo | test | test-all | lint | bench | bench-full | docs | setup"

# One stamp per set of extras: a second make finds it and installs nothing.
$(VENV)/.stamp-core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-core
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e ".[dev]"
	touch $@

setup: $(VENV)/.stamp-dev

demo: $(VENV)/.stamp-core
	@if [ -e runs/demo/recipe.toml ]; then $(BIN)/unstir train --resume runs/demo; \
	else $(BIN)/unstir train quick --data emoji --out runs/demo; fi
	@$(BIN)/unstir sample runs/demo --out runs/demo/samples/grid.png
	@$(BIN)/unstir sample runs/demo --out runs/demo/samples/denoising.gif
	@echo
	@echo "What it wrote:"
	@echo "  runs/demo/samples/grid.png       samples, a row per category"
	@echo "  runs/demo/samples/denoising.gif  noise turning into pictures"
	@echo "  runs/demo                        the run folder:  . $(BIN)/activate && unstir info runs/demo"

test: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# denoising-diffusion-pytorch without its dependencies: they would bring torchvision, whose wheels fail beside a CPU torch.
$(VENV)/.stamp-bench: $(VENV)/.stamp-core
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e ".[bench]"
	$(BIN)/pip install -q --disable-pip-version-check --no-deps denoising-diffusion-pytorch==2.3.4
	touch $@

# The short form of everything, in ten minutes on two cores: that it runs, and roughly how things stand. bench-full is what results are
# quoted from: an hour and a half on a machine that does nothing else. Both write tables to the terminal, numbers and plots to BENCH.
BENCH ?= runs/benchmarks
BENCHMARK = $(BIN)/python benchmarks

bench: $(VENV)/.stamp-bench
	@mkdir -p $(BENCH) && rm -f $(BENCH)/short.jsonl
	$(BENCHMARK)/peers_train.py --settings installed bf16 --batch 64 --rounds 3 --steps 1 --plot $(BENCH)/short-train.png
	$(BENCHMARK)/peers_sample.py --settings bf16 --rounds 2 -n 16 --plot $(BENCH)/short-sample.png
	$(BENCHMARK)/memory.py --settings installed bf16 --batch 32 --rounds 1 --steps 2 --plot $(BENCH)/short-memory.png
	$(BENCHMARK)/overhead.py --steps 5
	$(BENCHMARK)/data_path.py --pictures 2000 --steps 30
	$(BENCHMARK)/scaling.py --rounds 1 --steps 20
	$(BENCHMARK)/scaling.py --estimate
	$(BENCHMARK)/time_to_quality.py --seconds 15 --seeds 0 -n 128 --only lucidrains diffusers unstir-unconditional unstir \
		--out $(BENCH)/short.jsonl --plot $(BENCH)/short-quality.png

bench-full: $(VENV)/.stamp-bench
	@mkdir -p $(BENCH)
	$(BENCHMARK)/peers_train.py --json $(BENCH)/peers_train.json --plot $(BENCH)/peers_train.png
	$(BENCHMARK)/peers_sample.py --steps 20 50 --json $(BENCH)/peers_sample.json --plot $(BENCH)/peers_sample.png
	$(BENCHMARK)/memory.py --json $(BENCH)/memory.json --plot $(BENCH)/memory.png
	$(BENCHMARK)/overhead.py --steps 40 --json $(BENCH)/overhead.json
	$(BENCHMARK)/data_path.py --json $(BENCH)/data_path.json
	$(BENCHMARK)/scaling.py --json $(BENCH)/scaling.json
	$(BENCHMARK)/scaling.py --estimate --json $(BENCH)/estimate.json
	$(BENCHMARK)/time_to_quality.py --out $(BENCH)/time_to_quality.jsonl --plot $(BENCH)/time_to_quality.png

$(VENV)/.stamp-docs: $(VENV)/.stamp-core
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e ".[docs]"
	touch $@

docs: $(VENV)/.stamp-docs
	$(BIN)/unstir formulas --markdown > docs/formulas.md
	$(BIN)/zensical build

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
