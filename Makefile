# Two commands do everything: `make demo` and `make test`. Each makes the environment first.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PY := $(VENV)/bin/python
NOT_SLOW := not slow and not gpu
PROCESSES ?= 2
CUT ?= final
FULL ?=

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all lint bench evaluate results lock clean clean-data

help:  ## Show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 20

env:
	@test -n "$(PYTHON)" || { echo "Python was not found: install Python 3.11 or newer, then run this again." >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py --venv $(VENV)

demo: env  ## The whole line on real data: ingest, apply, materialise, read online and point in time
	@$(PY) -m feast_repo.demo

test: env  ## Every test that runs within minutes
	@$(PY) -m pytest -q -n $(PROCESSES) --dist loadfile -m "$(NOT_SLOW)"

test-all: env  ## Every test, the slow ones too
	@$(PY) -m pytest -q

lint: env  ## Static checks: ruff, formatting, types, import layers
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: env  ## Measure speed and memory into results/performance.json
	@$(PY) -m benchmarks.run

evaluate: env  ## Every figure of quality, and its pictures (TUNED=1 soft prompts, FULL=1 ablations too; choose on CUT=selection)
	@$(PY) -m feast_repo.evaluation --cut $(CUT) $(if $(TUNED),--tuned) $(if $(FULL),--full)
	@$(PY) -m benchmarks.results

results: env  ## Render the tables of README and docs from results/*.json
	@$(PY) -m benchmarks.results

lock: env  ## Write requirements.lock anew from pyproject.toml
	@$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --extra dev pyproject.toml -o requirements.lock

clean:  ## Remove caches and logs; never data, never the environment
	@rm -rf logs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis spark-warehouse
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
	@echo "Removed caches and logs. The store and its lake stand in data/: 'make clean-data' removes them."

clean-data:  ## Remove data/ (lake, registry, online store) after asking
	@printf 'Remove data/ with the lake, the registry and the online store? [y/N] '; read answer; \
	  if [ "$$answer" = y ]; then rm -rf data; echo "Removed data/."; else echo "Nothing was removed."; fi
