# Each target does its own set-up on a fresh Debian machine that has only Python 3.11+, pip, git and make.
.PHONY: help venv demo test check bench interop soak docs lock protos reference dist packages
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN = .venv/bin
UV = .tools/bin/uv
PYTEST = $(BIN)/pytest -q
# Without bytecode on disk every one of the hundred processes that the tests start would compile its modules again.
unexport PYTHONDONTWRITEBYTECODE
# uv asks no settings of pip's; see docs/how-to/private-index.md for the ones it does ask.
export UV_PYTHON_DOWNLOADS = never
# The certificates of the machine: a lab behind a proxy has its own.
export UV_SYSTEM_CERTS = true

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

venv: .venv/.ready ## build .venv with every extra and the developer tools

demo: venv ## everything simulated, on this machine: open the panel, say yes; without a terminal it says so itself and ends
	@if [ -t 0 ] && [ -t 1 ]; then exec $(BIN)/fieldstation demo; else exec $(BIN)/fieldstation demo --once; fi

test: venv packages ## all tests but the long ones; installs the Debian packages they need when run as root
	$(BIN)/python tools/run_tests.py --ignore=tests/interop tests

check: venv ## format, lint, types, imports, unit tests: the gate before a commit, under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not soak" tests/unit tests/test_house.py

bench: venv ## measure against the raw limits; writes bench/RESULTS.md
	$(BIN)/python bench/run.py

interop: venv packages ## published clients of today's systems against our servers
	$(PYTEST) -m "not soak" tests/interop

soak: venv ## the tests that take minutes
	@$(PYTHON) tools/system_packages.py --soak
	FIELDSTATION_EXAMPLES=50 $(PYTEST) -m soak tests

docs: venv ## build the documentation into site-docs/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

reference: venv ## write docs/reference/generated and the picture of the architecture anew
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/architecture.py

protos: venv ## write the protobuf modules anew
	$(BIN)/python tools/protos.py

dist: venv ## build the source archive and the wheel into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

lock: $(UV) ## resolve into constraints.txt, without any index address; LOCK=--upgrade takes newer versions
	$(UV) pip compile -q $(LOCK) --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --all-extras --group dev --custom-compile-command "make lock" pyproject.toml -o constraints.txt
	sed -n '/^uv==/,/# via/p' constraints.txt | sed '/# via/d' | sed '$$ s/ \\$$//' > tools/uv.txt

packages:
	@$(PYTHON) tools/system_packages.py

# uv makes the environment: it needs no ensurepip, which Debian keeps in a package of its own.
$(UV): tools/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11; name a newer one with: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m pip install -q --disable-pip-version-check --no-warn-script-location --root-user-action=ignore \
	  --upgrade --require-hashes --target .tools -r tools/uv.txt
	@touch $@

.venv/.ready: constraints.txt pyproject.toml $(UV)
	$(UV) venv -q --clear .venv --python $(PYTHON)
	$(UV) pip install -q --python $(BIN)/python --require-hashes -r constraints.txt
	$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
