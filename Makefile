# One command for the main job, one for the tests; both do their own set-up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint benchmark reports wheel clean

run: $(VENV)/.installed
	$(BIN)/genbench run --suite digits

test: $(VENV)/.installed-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-test
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: $(VENV)/.installed-test
	$(BIN)/pytest tests/benchmarks --benchmark-only

# The reports of the reference runs, made again from the records and pictures of the leaderboards.
reports: $(VENV)/.installed
	for suite in $(notdir $(patsubst %/records,%,$(wildcard leaderboards/*/records))); do \
	  $(BIN)/genbench report leaderboard:$$suite --out reports/$$suite/index.html || exit 1; \
	done

wheel: $(VENV)/.installed-test
	$(BIN)/python -m build --wheel

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "genbench needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
