# Everything starts with one command. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
ORACLES := .venv-oracles
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo run lint quick test test-all oracles bench chaos mutants picture screens docs lock clean

help:  ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "The bridge needs Python 3.11 or newer; this is Python " + sys.version.split()[0] + ". Install one, or name it: make demo PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/runtime: $(VENV)/pip requirements.txt
	@echo "Installing the pinned packages ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/dev: $(VENV)/pip requirements-dev.txt
	@echo "Installing the pinned packages for development ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/runtime

setup: $(VENV)/runtime  ## install what the bridge needs into .venv
setup-dev: $(VENV)/dev  ## the same, and what its tests need

demo: setup  ## show signed events of six sources become goals, on this machine alone (ARGS=--once ends by itself)
	@$(BIN)/python -m bridge demo $(ARGS)

run: setup  ## start the bridge, with the settings in .env if there is one
	@$(BIN)/python -m bridge serve $(ARGS)

lint: setup-dev  ## check style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# pytest rewrites every test module; with the result kept, collecting the unit tests takes half as long.
unexport PYTHONDONTWRITEBYTECODE
TESTS := $(BIN)/python -m pytest --dist worksteal
# Most tests wait for a process of their own.
TWO_A_CORE = $$((2 * $$(getconf _NPROCESSORS_ONLN)))

quick: lint  ## the same, and run the unit tests: about a minute, while you write
	$(TESTS) -n auto -m "not long" tests/unit $(ARGS)

test: lint  ## the same, and test every subject once: about six minutes, before you commit
	$(TESTS) -n $(TWO_A_CORE) -m "not long" $(ARGS)

test-all: lint  ## the same, and run every test: half an hour, as CI does
	$(TESTS) -n auto $(ARGS)

$(ORACLES)/python: requirements-oracles.txt
	@$(PYTHON) -m venv $(ORACLES)
	@echo "Installing the providers' own packages ..."
	@$(ORACLES)/bin/python -m pip install -q --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements-oracles.txt
	@touch $@

$(ORACLES)/node: oracles/node/package-lock.json | $(ORACLES)/python
	@node -e 'process.exit(Number(process.versions.node.split(".")[0] < 20))' || { echo "The oracles need Node 20 or newer, with npm: apt-get install nodejs npm" >&2; exit 1; }
	@cd oracles/node && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

oracles: $(ORACLES)/python $(ORACLES)/node  ## compare every preset with its provider's own library (ARGS=--write keeps the verdicts)
	@$(ORACLES)/bin/python -m oracles $(ARGS)

bench: setup-dev  ## measure speed, CPU time and memory (docs/performance.md)
	@$(BIN)/python -m bench $(ARGS)

chaos: setup-dev  ## count what is lost while processes are killed: MODE= EVENTS= KILLS= FAULTS= SEED= DATABASE_URL= (docs/reliability.md)
	@$(BIN)/python -m chaos

picture: setup  ## draw the README's picture of the demo, from a real one
	@$(BIN)/python -m docs.picture

screens: setup-dev  ## take the pictures of the console, from a real demo
	@$(BIN)/python -m docs.screens

mutants: setup-dev  ## what small wrong changes would no test notice? 300 of them, 40 minutes (ARGS="--count 10 --seed 2")
	@$(BIN)/python -m bench.mutants $(ARGS)

docs: setup-dev  ## write the generated parts of the docs again
	@$(BIN)/python -m docs.generate

PIN := $(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --strip-extras --no-header --allow-unsafe

lock:  ## pin again what pyproject.toml and oracles/ allow; no lock names a package index
	$(BIN)/python -m pip install -q pip-tools
	$(PIN) -o requirements.txt pyproject.toml
	$(PIN) --extra test --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml
	$(PIN) -c requirements.txt -o requirements-oracles.txt oracles/requirements.in
	cd oracles/node && npm install --silent --package-lock-only --ignore-scripts --no-audit --no-fund && node unnamed.mjs

clean:  ## remove the environments and the demo's files
	rm -rf $(VENV) $(ORACLES) oracles/node/node_modules build *.egg-info
