# Needs only python3 (>= 3.11) with venv. CONSTRAINTS=/dev/null lifts the pins (on a machine with a GPU, say).
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: help setup demo test test-all lint format bench docs clean
help:
	@echo "make demo | test | test-all | lint | bench | docs | setup"

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

bench: $(VENV)/.stamp-core
	$(BIN)/python benchmarks/overhead.py

$(VENV)/.stamp-docs: $(VENV)/.stamp-core
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e ".[docs]"
	touch $@

docs: $(VENV)/.stamp-docs
	$(BIN)/unstir formulas --markdown > docs/formulas.md
	$(BIN)/zensical build

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
