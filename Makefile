# `make run` and `make test` need only Python 3.11 or newer and pip: they create .venv, install and do the job.
#
#   make run                          labels of a few stars by the shipped weights; then train and evaluate a small flow
#   make run SPECTRA="path/*.fits"    and infer these spectra too
#   make test | make lint             the test suite without what is slow | ruff and mypy
#   make test-slow                    statistics of many stars and long trainings: before weights change, or a release
#   make docs                         the documentation as a site, in site/
#   make durations                    the test suite, timed: how its files are handed to the workers from then on

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test test-slow durations lint format docs clean

PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

run: $(VENV)/.run
	$(BIN)/python -m experiments.demo $(if $(SPECTRA),spectra="$(SPECTRA)")

test: $(VENV)/.test
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.test
	$(PYTEST) -m slow

durations: $(VENV)/.test
	$(PYTEST) -m "not slow" --record-durations

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Stamps: an installation is repeated only when the project's requirements change.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[plots]"
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[plots,test]"
	touch $@ $(VENV)/.run

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "jaxspec needs Python 3.11 or newer and found none as $(PYTHON); say which: make PYTHON=/path/to/python ..."; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) site .cache .pytest_cache .ruff_cache .hypothesis
