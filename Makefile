# Each target makes what it needs: the environment is built once, and again only when its pins or the package change.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-with
FULL_STAMP := $(VENV)/.installed-with-all

.PHONY: help env demo test test-all test-rest lint format clean

help:
	@echo "make demo      synthetic exams, three classifiers, a report, a bundle, a prediction (minutes)"
	@echo "make test      style, types, and the tests (under 15 minutes)"
	@echo "make test-all  every test, the slow ones and those of optional libraries too"
	@echo "make test-rest what make test has left out: slow tests, and those that were skipped"
	@echo "make format    put the sources into the project's format"
	@echo "make clean     remove the environment and what make demo wrote"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Spicula needs Python 3.11 or later; say which with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch -e '.[train,exams,serve,dev]'
	@touch $@

$(FULL_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		torch -e '.[train,exams,serve,archives,formats,ray,peers,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/spicula demo --out demo-out

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# two processes; threads that wait for the others of their process leave the core to the other one
test: lint
	OMP_WAIT_POLICY=passive $(BIN)/pytest -m "not slow" --keep-passed -n 2 --dist loadfile

test-all: $(FULL_STAMP)
	$(BIN)/pytest

test-rest: $(FULL_STAMP)
	$(BIN)/pytest --rest

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo-out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
