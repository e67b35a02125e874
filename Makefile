# Everything runs in an environment of its own; a fresh machine needs Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test test-oldest lint format types bench notebooks clean

$(VENV)/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	touch $@

.venv-oldest/.done: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q --disable-pip-version-check \
		-e ".[test]" "jax==0.7.0" "jaxlib==0.7.0"
	touch $@

.venv-bench/.done: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install -q --disable-pip-version-check -e ".[bench]"
	touch $@

demo: $(VENV)/.done  ## The main job: solve, certify, differentiate and look, on real data.
	$(BIN)/python -m jaxopt_lite

test: $(VENV)/.done  ## The test suite.
	$(PYTEST) -n 2 --dist loadgroup -q

test-oldest: .venv-oldest/.done  ## The suite with the oldest JAX declared in pyproject.toml; no notebooks.
	.venv-oldest/bin/python -m pytest -n 2 --dist loadgroup -q --ignore=tests/test_notebooks.py

lint: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.done
	$(BIN)/mypy

bench: .venv-bench/.done  ## Ours and the peers; rewrites the tables in benchmarks/README.md.
	.venv-bench/bin/python -m benchmarks

notebooks: $(VENV)/.done  ## Execute every notebook in place.
	$(BIN)/python -m tests.run_notebooks

clean:
	rm -rf .venv .venv-oldest .venv-bench demo build dist *.egg-info
