# Everything runs through .venv, which `make install` builds; nothing needs to be activated.

PYTHON ?= python3
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
STAMP := $(VENV)/.installed
SKPRO := .venv-skpro
AXE := $(VENV)/browser
MATHJAX := $(VENV)/docs/node_modules/mathjax/es5/tex-svg-full.js
CLEAN := $(VENV)/clean
RAY := .venv-ray

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## build .venv with hilbound and its development tools (skipped when up to date)
	@echo "ready: $(BIN)/hilbound"

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { \
		echo "error: no '$(PYTHON)' found; install Python 3.11 or newer, or name one: make PYTHON=python3.11" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: hilbound needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1); name a newer one: make PYTHON=python3.11" >&2; \
		exit 1; }
	@echo "installing into $(VENV) (about a minute)"
	@$(RUN) pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(RUN) pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# Tests in a browser skip, and say why, where one of these cannot be had.
.PHONY: browser
browser: $(STAMP) ## get what the tests in a browser need: Chromium and axe-core
	@command -v chromium > /dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo "installing chromium" \
		&& apt-get update -qq < /dev/null > /dev/null \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium < /dev/null > /dev/null; \
		} || echo "note: no chromium; install it (apt-get install chromium) to run the tests in a browser"
	@[ -f $(AXE)/node_modules/axe-core/axe.min.js ] || { \
		command -v npm > /dev/null && npm install --silent --no-audit --no-fund --prefix $(AXE) axe-core@4.14.1 < /dev/null; \
		} || echo "note: no axe-core; install npm to run the tests of accessibility"

.PHONY: demo
demo: $(STAMP) ## train six small models and compare their bounds
	@$(BIN)/hilbound demo

.PHONY: test
test: lint ## run the linters, the doctests and the tests
	@echo "== doctests"
	@$(RUN) pytest --doctest-modules src --quiet
	@echo "== tests"
	@OMP_NUM_THREADS=1 $(RUN) pytest tests -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: test-skpro
test-skpro: $(SKPRO)/.installed ## test the adapter to skpro, in an environment of its own
	@OMP_NUM_THREADS=1 $(SKPRO)/bin/python -m pytest tests/estimators/test_skpro.py

# skpro wants an older pandas than ours; everything else is the same.
$(SKPRO)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(SKPRO) (some minutes)"
	@$(PYTHON) -m venv --clear $(SKPRO)
	@grep -v '^pandas==' constraints.txt > $(SKPRO)/constraints.txt
	@$(SKPRO)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		-c $(SKPRO)/constraints.txt -e ".[skpro]" hypothesis pytest
	@touch $@

.PHONY: test-ray
test-ray: $(RAY)/.installed ## test sweeps over a local Ray cluster, in an environment of its own
	@OMP_NUM_THREADS=1 $(RAY)/bin/python -m pytest tests/experiments/test_sweep.py -k ray

$(RAY)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(RAY) (some minutes)"
	@$(PYTHON) -m venv --clear $(RAY)
	@$(RAY)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		-c constraints.txt -e ".[ray]" hypothesis pytest
	@touch $@

.PHONY: test-hostile
test-hostile: CASES ?= 100000
test-hostile: SEED ?= 1
test-hostile: $(STAMP) ## mutate valid files 100,000 times (or CASES=...), and look for foreign errors (3 minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/hostile/fuzz.py --cases $(CASES) --seed $(SEED) --workers $(WORKERS)

.PHONY: test-killed
test-killed: $(STAMP) ## kill a training at 50 random moments, and compare how it ends
	@OMP_NUM_THREADS=1 $(BIN)/python tests/support/killed.py $$(mktemp -d) --kills 50

.PHONY: docs
docs: $(STAMP) $(MATHJAX) ## build the site into docs/_build/html, and check it
	@echo "installing the site's tools"
	@$(RUN) pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@echo "== building (the gallery is executed: some minutes)"
	@rm -rf docs/_build/html
	@OMP_NUM_THREADS=1 $(RUN) sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "== links"
	@$(BIN)/python docs/scripts/check_links.py docs/_build/html
	@echo "== in a browser"
	@$(RUN) pytest tests/test_site.py --quiet

$(MATHJAX):
	@npm install --silent --no-audit --no-fund --prefix $(VENV)/docs mathjax@3.2.2 < /dev/null

.PHONY: wheel
wheel: $(STAMP) ## build the wheel, install it elsewhere, and run the demo and a type check there
	@rm -rf dist $(CLEAN)
	@$(RUN) build --outdir dist > /dev/null
	@$(PYTHON) -m venv $(CLEAN)
	@$(CLEAN)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl mypy
	@cp tests/support/consumer.py $(CLEAN)/consumer.py
	@cd $(CLEAN) && bin/python -m mypy --strict --python-executable bin/python consumer.py
	@cd $(CLEAN) && bin/hilbound demo --quiet -o demo && bin/hilbound playground --no-browser -o page.html

.PHONY: lint
lint: $(STAMP) ## check style, types and the direction of imports
	@echo "== style"
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@echo "== types"
	@$(RUN) mypy
	@echo "== imports"
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(STAMP) ## mend the style, where a tool can
	@$(RUN) ruff check --fix --exit-zero
	@$(RUN) ruff format

.PHONY: clean
clean: ## delete .venv, caches and build outputs
	rm -rf $(VENV) $(SKPRO) $(RAY) build dist docs/_build docs/_generated docs/examples docs/reference/api .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
