# The same commands for people, pre-commit and CI. `make` alone says what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RKNN   := .venv-rknn
# The tests run every backend that installs beside torch.
BACKENDS := openvino tvm ncnn mnn
# And `make reach` the networks of these.
NETWORKS := timm transformers

# A machine-wide pip constraint must not fight with the lock.
export PIP_CONSTRAINT := /dev/null
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format bench reach lock clean rknn

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(STAMP)  ## make .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## AlexNet to ONNX opset 11, checked, simplified and compared
	$(BIN)/python -m pipeline model=alexnet export.opset=11

test: $(STAMP)  ## everything but the slow tests
	$(BIN)/python -m pytest -m 'not slow'

test-all: $(STAMP)  ## every test
	$(BIN)/python -m pytest

lint: $(STAMP)  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## what ruff can mend by itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(STAMP)  ## time and memory beside a hand-written script
	$(BIN)/python tests/benchmarks/bench.py $(BENCH)

reach: $(STAMP)  ## which network reaches which opset: docs/reach.md, goes on where it stopped
	$(BIN)/python tests/benchmarks/reach.py $(REACH)

lock: $(STAMP)  ## resolve requirements.lock anew: hashes, no addresses
	$(BIN)/uv pip compile pyproject.toml --extra dev $(BACKENDS:%=--extra %) $(NETWORKS:%=--extra %) \
	    --universal --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file requirements.lock
	@! grep -n '://' requirements.lock

rknn: $(RKNN)/.installed  ## an environment with rknn-toolkit2 in .venv-rknn, for target=rknn

$(RKNN)/.installed: requirements-rknn.txt
	$(PYTHON) -m venv $(RKNN)
	$(RKNN)/bin/python -m pip install --quiet -r requirements-rknn.txt
	$(RKNN)/bin/python -m pip install --quiet --no-deps rknn-toolkit2==2.5.0
	@touch $@

clean:  ## caches and builds; outputs/ and .venv stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find pipeline models tests -name __pycache__ -type d -prune -exec rm -rf {} +
