# make demo   the whole path on the embedded simulation, ends with the path of gallery.html
# make test   the whole offline suite
# make lint   ruff and mypy
# make docs   the documentation with its examples, into docs/_build/html
# Each sets itself up in .venv first; the second call skips that.
#
# PYTHON=python3.12                                      which interpreter builds .venv; without it: python3 if that is
#                                                        3.11 to 3.14, else the newest of python3.14 ... python3.11
# WORKERS=2                                              test processes at once (auto: one a core; 0: this one alone)
# TORCH_INDEX=https://download.pytorch.org/whl/cpu       CPU wheels of torch and torchvision
# PIP_FLAGS=--no-cache-dir                               anything else for pip install
# PYTEST_FLAGS='-p tests.hidden_posix'                   anything for pytest; this: the suite without what Windows lacks

FITS := import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 15) else 1)
PYTHON ?= $(or $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$each -c '$(FITS)' 2>/dev/null && { echo $$each; break; }; done),python3)
VENV ?= .venv
WORKERS ?= 2
TORCH_INDEX ?=
PIP_FLAGS ?=
OUT ?= runs/demo

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALL = $(BIN)/python -m pip install -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(PIP_FLAGS)

.PHONY: help demo test lint docs clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed
	$(BIN)/recon demo --out $(OUT)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

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
	@$(PYTHON) -c '$(FITS)' || { \
		echo "$(PYTHON) is not Python 3.11, 3.12, 3.13 or 3.14: install one, or say where: make ... PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module: install it (Debian/Ubuntu: apt install python3-venv) and run make again" >&2; exit 1; }
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
