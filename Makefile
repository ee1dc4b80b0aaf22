# make help lists what there is. Everything runs in .venv, which is made when it is first needed and never made again
# until pyproject.toml or constraints.txt change. PYTHON=python3.12 make ... chooses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
DATA := data/quickstart
RUN := runs/quickstart-mixture
EXAMPLES := data/quickstart-ranking
RANKING := runs/quickstart-ranking
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location -c constraints.txt

.PHONY: help train train-ranking prepare test test-slow test-slurm attack lint format golden bench clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

train: $(CORE) $(DATA)/manifest.json $(DATA)-refit/manifest.json  ## the whole way on the bundled log: prepare, train, refit, evaluate, recommend
	$(BIN)/attnrec train configs/quickstart-mixture.yaml --run_dir $(RUN)
	$(BIN)/attnrec plot $(RUN)
	$(BIN)/attnrec refit $(RUN) --data $(DATA)-refit --output $(RUN)-refit
	$(BIN)/attnrec evaluate $(RUN)-refit --output $(RUN)-refit/test.json
	$(BIN)/attnrec recommend $(RUN)-refit --output $(RUN)-refit/recommendations.parquet --show 3

train-ranking: $(CORE) $(EXAMPLES)/manifest.json  ## purchase prediction on the bundled log: attention over features, and its ablation
	$(BIN)/attnrec train configs/quickstart-ranking.yaml --run_dir $(RANKING)
	$(BIN)/attnrec train configs/quickstart-ranking.yaml --run_dir $(RANKING)-uniform --model.attention uniform
	$(BIN)/attnrec evaluate $(RANKING) --output $(RANKING)/test.json --per_view $(RANKING)/test.parquet
	$(BIN)/attnrec compare $(RANKING)-uniform $(RANKING) --output $(RANKING)/compared.json --plot $(RANKING)/compared.png
	$(BIN)/attnrec explain $(RANKING) --output $(RANKING)/explained

$(EXAMPLES)/manifest.json: configs/prepare/quickstart-ranking.yaml | $(CORE)
	$(BIN)/attnrec prepare configs/prepare/quickstart-ranking.yaml --output $(EXAMPLES) --overwrite

prepare: $(DATA)/manifest.json  ## the bundled log only -> data/quickstart

$(DATA)/manifest.json: configs/prepare/quickstart.yaml | $(CORE)
	$(BIN)/attnrec prepare configs/prepare/quickstart.yaml --output $(DATA) --overwrite

$(DATA)-refit/manifest.json: configs/prepare/quickstart.yaml | $(CORE)
	$(BIN)/attnrec prepare configs/prepare/quickstart.yaml --output $(DATA)-refit --overwrite --split.train 0.9 --split.validation 0 --split.test 0.1

test: $(DEV)  ## the test suite (about 12 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder --durations=15

test-slow: $(DEV)  ## the longer tests as well
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slurm: $(DEV)  ## slurm/ on a real Slurm: the one at hand, or SLURM_SANDBOX=SCRIPT; skipped where there is none
	$(BIN)/python -m pytest tests/slurm -rs

attack: $(DEV)  ## an hour of mutated logs and damaged files (ATTACK="--case 17": one of them again)
	$(BIN)/python tests/attack $(or $(ATTACK),--seconds 3600)

lint: $(DEV)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(DEV)  ## write tests/convergence/golden/ anew, after a change that moves the numbers on purpose
	$(BIN)/python tests/convergence/golden_run.py

bench: $(DEV) $(DATA)/manifest.json  ## speed of each part on this machine, beside its floor
	$(BIN)/python benchmarks/spine.py

$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; type: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about two minutes"
	$(PIP) -e '.[plots]'
	touch $@

$(DEV): $(CORE)
	$(PIP) -e '.[dev]'
	touch $@

clean:  ## remove prepared data and runs, keep the environment
	rm -rf data runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
