# Two commands do everything a new user needs: make demo, make test. Each target sets up .venv by itself.
#
# Variables, as in: make demo PYTHON=python3.12 TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   PYTHON       interpreter for .venv, 3.11 or newer (default: the first that is found)
#   TORCH_INDEX  package index that torch alone is taken from (default: the ordinary one, which on Linux gives the
#                CUDA build of several GB; the index above has the CPU build of 0.2 GB)
#   RUN          folder of the demonstration's run (default: runs/silica_mini)
#   ARGS         more arguments: settings for make demo, options for make test

VENV := .venv
BIN := $(VENV)/bin
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(RECENT)' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
RUN ?= runs/silica_mini
ARGS ?=
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# One thread a process: the pipeline and pytest run several processes, and small matrices gain nothing from threads
SINGLE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench clean

help:
	@echo "make demo   the whole method on an embedded silica data set; ends with the path of report.html"
	@echo "make test   all tests"
	@echo "make lint   ruff (rules and format) and pyright"
	@echo "make docs   the documentation, in docs/_build/html; a warning is an error"
	@echo "make bench  short benchmarks"
	@echo "make clean  remove .venv, caches and built files; runs/ stays"
	@echo "Each makes .venv where it is missing. Variables are explained at the top of the Makefile."

demo: $(VENV)/.runtime
	$(BIN)/pretrain-mlip run output=$(RUN) $(ARGS)
	@echo "The report: $(abspath $(RUN))/report.html"

# worksteal: a process starts with half of all tests, in order, so that what the tests of a file share is made once
test: $(VENV)/.dev
	$(SINGLE) $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "The documentation: $(CURDIR)/docs/_build/html/index.html"

bench: $(VENV)/.runtime
	$(SINGLE) $(BIN)/python benchmarks/read_extxyz.py 2000 70
	$(SINGLE) $(BIN)/python benchmarks/calculators.py

clean:
	rm -rf $(VENV) build dist docs/_build docs/reference .pytest_cache .ruff_cache .hypothesis
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# What is needed to use the package
$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(RECENT)' 2>/dev/null || \
		{ echo "error: no Python 3.11 or newer ($(PYTHON)); name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@test -z "$(TORCH_INDEX)" || $(INSTALL) --no-deps --extra-index-url "$(TORCH_INDEX)" torch
	@$(INSTALL) -e .
	@touch $@

# What is needed to work on it, on top of that
$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the tools for development into $(VENV)"
	@$(INSTALL) -e ".[dev,docs,public]"
	@touch $@
