# Each command sets up .venv on the first run (about 2 minutes, 6 GB), and again only if the requirements change. With one of
# these three, it uses an environment of its own, such as .venv-onedl or .venv-py3.13-newest:
#   PYTHON=python3.13   another Python
#   STACK=onedl         the OneDL forks in place of the upstream OpenMMLab packages
#   VERSIONS=newest     the newest versions that the requirements admit, or VERSIONS=oldest
PYTHON ?= python3
STACK ?= lite
VERSIONS ?= lock
VENV := .venv$(if $(filter-out lite,$(STACK)),-$(STACK))$(if $(filter-out file,$(origin PYTHON)),-py$(shell \
	$(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))$(if $(filter-out lock,$(VERSIONS)),-$(VERSIONS))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test attack lint format report bench docs lock dist clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv, or one for PYTHON=python3.13, STACK=onedl, VERSIONS=newest|oldest

demo: $(STAMP) ## Train, test and show the method in its small embedded world
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/demo.py $(ARGS)

test: $(STAMP) ## Run the tests, on up to 4 cores; ARGS="-k name" picks some, ARGS="-n 0" runs them in one process
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

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
	@OMP_NUM_THREADS=1 $(BIN)/alignzeg analyze configs/alignzeg_patterns.py "$$(cat work_dirs/demo/last_checkpoint)" \
		--out work_dirs/report $(ARGS)

work_dirs/demo/last_checkpoint:
	@$(MAKE) demo

bench: $(STAMP) ## Measure time and memory against SAN of mmsegmentation
	@$(BIN)/alignzeg speed $(ARGS)

docs: .venv-docs/.installed ## Build the documentation site into site/, in an environment of its own (215 MB)
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict $(ARGS)

.venv-docs/.installed: requirements/docs.txt requirements/lock/docs.txt
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: -r requirements/docs.txt \
		-c requirements/lock/docs.txt
	@touch $@

lock: $(STAMP) ## Write the versions of the environment to requirements/lock (use it with VERSIONS=newest)
	@{ sed -n '/^#/p' requirements/lock/$(STACK).txt; \
		$(BIN)/python -m pip freeze --exclude-editable --exclude mmseg_alignzeg | grep -viE '^(nvidia|cuda|triton)' | \
		sed 's/+[a-z0-9.]*$$//'; } > requirements/lock/new.txt
	@mv requirements/lock/new.txt requirements/lock/$(STACK).txt

dist: $(STAMP) ## Build the wheel and the source archive into dist, and try the wheel in an empty environment
	@$(BIN)/python tools/try_wheel.py $(ARGS)

clean: ## Remove environments, caches and builds (not work_dirs)
	@rm -rf .venv .venv-* build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache

# -q keeps pip's log short. --only-binary: never start a compiler; the OneDL forks are sources of pure Python.
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
SOURCES_onedl := --no-binary onedl-mmcv,onedl-mmsegmentation,onedl-mmdetection,onedl-mim
PINS_lock := requirements/lock/$(STACK).txt
PINS_oldest := requirements/lock/oldest.txt
WHEELS := $(PIP) --only-binary :all: $(SOURCES_$(STACK)) $(addprefix -c ,$(PINS_$(VERSIONS)))
CORE := requirements/runtime.txt requirements/$(STACK).txt
MMDET_lite := requirements/mmdet.txt
MMDET_onedl := requirements/onedl-mmdet.txt
EXTRAS := $(patsubst %,requirements/%.txt,tests report web export lint) $(MMDET_$(STACK))

$(STAMP): $(CORE) $(EXTRAS) $(PINS_$(VERSIONS)) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "[1/4] virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) 'setuptools>=80,<81'
	@echo "[2/4] PyTorch, MMEngine, MMSegmentation, open_clip (about 6 GB the first time)"
	@$(WHEELS) $(addprefix -r ,$(CORE))
	@echo "[3/4] pytest, mmdet, gradio, onnx, ruff, mypy"
	@$(WHEELS) $(addprefix -r ,$(EXTRAS))
	@echo "[4/4] mmseg_alignzeg, as a link to this folder"
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@
