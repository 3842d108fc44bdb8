# make demo   install into .venv and segment the bundled clip with the bundled weights
# make test   install into .venv and run the tests
# make docs   build the site into build/site; broken links and unknown names fail
# make notebooks   run the notebooks of examples/notebooks from top to bottom
# make browser   the tests that need a Chromium, which is not installed by this
# make check  everything CI runs: formatter, linter, order of imports, type checker, tests
#
# Needs Python >= 3.11 with venv and pip. PYTHON=python3.12 chooses another one, EXTRAS=cuda12 adds
# extras of pyproject.toml to every installation.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= outputs/demo
EXTRAS ?=

comma := ,
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
# Plugins tell of themselves whatever happens; what is wrong with the pages, --strict says.
site = NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(VENV)/bin/mkdocs build --strict
extras = [$(1)$(if $(EXTRAS),$(comma)$(EXTRAS))]

.PHONY: demo test browser check format lint types docs notebooks clean
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# //p' Makefile

demo: $(VENV)/.installed
	@rm -rf $(DEMO)
	$(VENV)/bin/python infer.py examples/demo/cockatoo.mp4 --mask examples/demo/cockatoo.png --output $(DEMO)
	@echo "masks: $(DEMO)/masks   overlay: $(DEMO)/overlay.mp4"

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --durations=10

# Skipped, with a word, where no Chromium is found.
browser: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -q -rs -m "slow or not slow" tests/test_app_browser.py tests/test_report_browser.py

check: lint types test

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-logo
	$(site)

docs: $(VENV)/.installed-docs
	$(site)
	@echo "the site: build/site/index.html"

notebooks: $(VENV)/.installed-docs
	$(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[test]'
	$(VENV)/bin/python -m pytest -q -m slow tests/test_notebooks.py

types: $(VENV)/.installed-dev
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache outputs

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("rdejax needs Python 3.11 or newer, not %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV) || { echo "No working venv module: on Debian and Ubuntu, apt install python3-venv"; rm -rf $(VENV); exit 1; }

# One stamp for each set of packages; a change of pyproject.toml makes them all out of date.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing rdejax and JAX into $(VENV) (a few minutes the first time)"
	$(PIP) --editable '.$(if $(EXTRAS),[$(EXTRAS)])'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	@echo "Installing rdejax, JAX and pytest into $(VENV) (a few minutes the first time)"
	$(PIP) --editable '.$(call extras,test)'
	@touch $@

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	@echo "Installing rdejax and what builds its documentation into $(VENV)"
	$(PIP) --editable '.$(call extras,docs)'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing rdejax and the development tools into $(VENV) (a few minutes the first time)"
	$(PIP) --editable '.$(call extras,test$(comma)dev)'
	@touch $@
