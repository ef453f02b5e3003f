# Each command sets up .venv on the first run (about 2 minutes, 6 GB), and again only if the requirements change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test attack lint format report bench clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv

demo: $(STAMP) ## Train, test and show the method in its small embedded world
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/demo.py $(ARGS)

test: $(STAMP) ## Run the tests; ARGS="-k name" picks some
	@$(BIN)/python -m pytest $(ARGS)

attack: $(STAMP) ## Attack the page, checkpoints, training and files; prints a table
	@PYTHONPATH="tests:$$PYTHONPATH" $(BIN)/python -m pytest -q -m attack -p attack_table $(ARGS)

lint: $(STAMP) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Apply ruff's fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

report: $(STAMP) work_dirs/demo/last_checkpoint ## Analyse the demo's checkpoint: work_dirs/report/report.html
	@OMP_NUM_THREADS=1 $(BIN)/python tools/analyze.py configs/alignzeg_patterns.py "$$(cat work_dirs/demo/last_checkpoint)" \
		--out work_dirs/report $(ARGS)

work_dirs/demo/last_checkpoint:
	@$(MAKE) demo

bench: $(STAMP) ## Measure time and memory against SAN of mmsegmentation
	@$(BIN)/python tools/benchmark_san.py $(ARGS)

clean: ## Remove .venv, caches and builds (not work_dirs)
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache

# -q keeps pip's log short. --only-binary: never start a compiler.
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

$(STAMP): requirements/runtime.txt requirements/lite.txt requirements/tests.txt requirements/mmdet.txt requirements/report.txt requirements/web.txt requirements/export.txt \
		requirements/lint.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "[1/4] virtual environment in .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) 'setuptools>=77,<81' wheel
	@echo "[2/4] PyTorch, MMEngine, MMSegmentation, open_clip (about 6 GB the first time)"
	@$(PIP) --only-binary :all: -r requirements/runtime.txt -r requirements/lite.txt
	@echo "[3/4] pytest, mmdet, gradio, onnx, ruff, mypy"
	@$(PIP) --only-binary :all: -r requirements/tests.txt -r requirements/mmdet.txt -r requirements/report.txt \
		-r requirements/web.txt -r requirements/export.txt -r requirements/lint.txt
	@echo "[4/4] mmseg_alignzeg, as a link to this folder"
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@
