PYTHON ?= python3
PY     := .venv/bin/python
READY  := .venv/.ready

.PHONY: help setup data demo answers test test-fuzz test-faults test-slurm check format bench docs clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with the pinned packages

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 2; }
	@echo "making .venv (a few minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable ".[dev]"
	@touch $@

data: $(READY)  ## get Fashion-MNIST: found, downloaded, or from Debian's package
	@$(PY) -m src.data.sets data 2>/dev/null || $(MAKE) --no-print-directory debian-data
	@$(PY) -m src.data.sets data

debian-data:
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || exit 0; \
	folder=$$(mktemp -d) && chmod 755 $$folder && cd $$folder && echo "getting Debian's package dataset-fashion-mnist" && \
	{ apt-get download -qq dataset-fashion-mnist 2>/dev/null || { apt-get update -qq && apt-get download -qq dataset-fashion-mnist; }; } && \
	mkdir -p $(CURDIR)/data/debian && dpkg-deb -x dataset-fashion-mnist_*.deb $(CURDIR)/data/debian; rm -rf $$folder

demo: data  ## from a fresh clone to a comparison to look at: max, avg, none
	@$(PY) -m src.train -m model.pool=max,avg,none

answers: data  ## put every claim to the test: all studies, small, about an hour on 2 cores; preset=full: large
	@$(PY) -m src.answers preset=$(or $(preset),quick)

test: $(READY)  ## the tests, on all cores
	@$(PY) -m pytest -n logical --maxprocesses 8 --dist worksteal

test-fuzz: $(READY)  ## bad input, damaged run folders, values that only fail later: 1,500 cases (seed=, cases=)
	@$(PY) -m tests.fuzz seed=$(or $(seed),0) cases=$(or $(cases),1500)

test-faults: $(READY)  ## kill a sweep's processes at 30 random moments, and compare (a minute or two)
	@$(PY) -m tests.faults kills=30

test-slurm: $(READY)  ## sweeps through a real SLURM, installed and started for it; needs root on a Debian
	@$(PY) -m pytest tests/slurm -rs

check: $(READY)  ## lint, format, types
	@$(PY) -m ruff check src tests hydra_plugins docs/hooks
	@$(PY) -m ruff check --preview --select PLW1514 src hydra_plugins docs/hooks  # text is in UTF-8 on any machine
	@$(PY) -m ruff format --check src tests hydra_plugins docs/hooks
	@$(PY) -m mypy

format: $(READY)  ## apply ruff's automatic fixes, and format
	@$(PY) -m ruff check --fix src tests hydra_plugins docs/hooks
	@$(PY) -m ruff format src tests hydra_plugins docs/hooks

bench: $(READY)  ## speed, as ratios of medians of interleaved runs
	@$(PY) -m tests.bench

docs: $(READY)  ## build the documentation into site/ (half a minute, no network)
	@$(PY) -m mkdocs build --strict --quiet && echo "open site/index.html"

clean:  ## remove .venv and caches; data and outputs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info
