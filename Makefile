# make demo   the whole path on the embedded simulation, ends with the path of gallery.html
# make test   the whole offline suite
# make lint   ruff and mypy
# make docs   the documentation with its examples, into docs/_build/html
# Each sets itself up in .venv first; the second call skips that.
#
# PYTHON=python3.11                                      which interpreter builds .venv
# TORCH_INDEX=https://download.pytorch.org/whl/cpu       CPU wheels of torch and torchvision
# PIP_FLAGS=--no-cache-dir                               anything else for pip install

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
TORCH_INDEX ?=
PIP_FLAGS ?=
OUT ?= runs/demo

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(PIP_FLAGS)

.PHONY: help demo test lint docs clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed
	$(BIN)/recon demo --out $(OUT)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf docs/_build docs/auto_examples docs/generated docs/api_names.rst docs/sg_execution_times.rst
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 12) else 1)' || { \
		echo "$(PYTHON) is not Python 3.11 (the tested version): make ... PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module: install it (Debian/Ubuntu: apt install python3.11-venv) and run make again" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) -e '.[test,encoders]'
	$(INSTALL) --no-deps braindecode
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) -e '.[docs]'
	@touch $(VENV)/.installed $@
