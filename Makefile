# Each target does its own set-up on a fresh machine that has Python 3.11+, pip, git and make.
.PHONY: venv check test
PYTHON ?= python3
BIN = .venv/bin

venv: .venv/.ready

# uv makes the environment: it needs no ensurepip, which Debian keeps in a package of its own.
.venv/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m pip install -q --disable-pip-version-check --target .tools uv
	.tools/bin/uv venv -q --clear .venv --python $(PYTHON)
	.tools/bin/uv pip install -q --python $(BIN)/python --require-hashes -r constraints.txt
	.tools/bin/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit tests/test_house.py

test: venv
	$(BIN)/pytest -q tests
