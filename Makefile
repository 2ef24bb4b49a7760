# What a person types here. Every target sets up what it needs first; `make` alone lists them.
#
#   make train                                   with the python3 and the torch build that pip finds
#   make train PYTHON=python3.12                 another interpreter
#   make test JOBS=1                             one test at a time, for less memory
#   make train TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                                torch without CUDA (a tenth of the download)
#   make gpu RUN=python3                         with an interpreter that has all packages; nothing is installed

PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= auto
TABLE ?= gpu.md

VENV := .venv
RUN := $(VENV)/bin/python
PIP_INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXTRAS := dev,atari,box2d,dm-control,docs,envpool,jax,minari,minigrid,mujoco,onnx,plots,sweep,video

.DEFAULT_GOAL := help
.PHONY: help venv train test lint docs laws worlds learn mutate bench gpu clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

venv: $(VENV)/.stamp ## create .venv and install the package into it

# torch goes first, so that TORCH_INDEX decides its build and nothing else pulls in another one.
$(VENV)/.stamp: setup.py constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP_INSTALL) --editable ".[$(EXTRAS)]"
	touch $@

train: $(VENV)/.stamp ## train PPO on CartPole-v1
	$(RUN) examples/ppo/ppo.py --config=configs/ppo/cartpole.txt

test: $(VENV)/.stamp ## run the quick test suite
	$(RUN) -m pytest -q -n $(JOBS)

lint: $(VENV)/.stamp ## check the style, and the types that users see
	$(RUN) -m ruff check .
	$(RUN) -m mypy

docs: $(VENV)/.stamp ## build the site into docs/_build/html; a warning or a broken link is an error
	$(RUN) -m sphinx -q -W --keep-going -b html -c docs -d docs/_build/doctrees . docs/_build/html
	$(RUN) docs/links.py docs/_build/html

laws: $(VENV)/.stamp ## run the law suites and write what was held against them to docs/laws.md
	$(RUN) tests/law_table.py

worlds: $(VENV)/.stamp ## run worlds of other makers and write what came to docs/worlds.md (slow)
	$(RUN) tests/world_table.py

learn: $(VENV)/.stamp ## run the learning checks (slow: trains to known scores)
	$(RUN) -m pytest -q tests -m learn --timeout=7200

mutate: $(VENV)/.stamp ## mix up done and terminated one place at a time; the tests must notice each
	$(RUN) tests/mutate.py

bench: $(VENV)/.stamp ## run every benchmark, each against a plain loop
	$(PIP_INSTALL) --editable ".[benchmarks]"
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(RUN) $$script; done

# In one call, at most eight minutes, and without the network wherever the interpreter is there.
gpu: $(if $(shell command -v $(RUN)),,$(VENV)/.stamp) ## run the tests that need a GPU, then measure on it (the table: gpu.md)
	@status=0; \
	timeout 145 $(RUN) -m pytest -q -n 0 -m cuda tests || status=1; \
	$(RUN) benchmarks/gpu.py --seconds 325 --table $(TABLE) || status=1; \
	exit $$status

clean: ## remove .venv and everything that tools leave behind (never a *_logging folder)
	rm -rf $(VENV) build dist docs/_build docs/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
