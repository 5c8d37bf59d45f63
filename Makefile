.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Without compiled modules beside the sources every process that imports torch compiles thousands of them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo demo-fashion up down lint imported tested test test-quality bench lock
help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv and install the locked dependencies (does nothing when nothing changed)

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -W ignore -c 'import timm'
	touch $@

demo: setup  ## run the whole way on a sample catalogue, or on your own: make demo CATALOGUE=DIR
	$(BIN)/shopvision demo $(if $(CATALOGUE),--catalogue "$(CATALOGUE)")

up: setup  ## the same, and leave the stack running (`make down` stops it)
	$(BIN)/shopvision demo --keep-running $(if $(CATALOGUE),--catalogue "$(CATALOGUE)")

demo-fashion: setup  ## train on your photos with boxes, embed your catalogue, search by photo: make demo-fashion DATA=DIR
	$(BIN)/shopvision demo-fashion $(if $(DATA),--data "$(DATA)") $(if $(EPOCHS),--epochs $(EPOCHS))

down: setup  ## stop the stack
	$(BIN)/shopvision stack down

lint: setup  ## style, types and import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

imported: setup
	@# Whoever imports a module first compiles it: one process here, not each of several that test at once.
	$(BIN)/pytest --collect-only --quiet --quiet

test: setup  ## lint and every test but the slow ones
	@$(MAKE) --no-print-directory --jobs 2 lint tested

tested: imported
	@# Torch's threads of several processes would wait for each other, spinning. Of three test processes one begins
	@# with a running shop and one with a stack, which often wait, so that three keep two cores busy.
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder -m "not slow" $(ARGS)

test-quality: setup  ## the slow tests: real metrics on real data
	$(BIN)/pytest -m slow $(ARGS)

bench: setup  ## measure everything, or parts: make bench ARGS="index_latency --quick"; writes docs/benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

lock:  ## resolve the dependencies anew into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate --custom-compile-command 'make lock' pyproject.toml --output-file requirements.lock --upgrade
