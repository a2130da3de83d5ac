# One way to do each thing. Every target makes .venv first, when it is missing or older than what it is made from.

PYTHON ?= python3
# A CPU-only torch avoids some gigabytes of CUDA: make TORCH_INDEX=https://download.pytorch.org/whl/cpu install
TORCH_INDEX ?=
# More arguments for pytest: make test TEST="tests/unit -k wire"
TEST ?=
# Test processes side by side.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Nothing here asks a model hub for files, and no library reports its use.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export FLWR_TELEMETRY_ENABLED := 0
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench proto clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make .venv with everything that development needs.

# torch comes first and alone, so that its index serves nothing else; `--no-deps` leaves what torch needs to the
# second step. The build tools are installed from the same pins, instead of unpinned into an isolated build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Hansa needs Python 3.11 or later: make PYTHON=python3.11 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## Simulate five hospitals, publish their model and verify the package, in runs/demo.
	$(BIN)/hansa simulate --out runs/demo --force
	$(BIN)/hansa model verify runs/demo/publication --keys runs/demo/ledgers/keys.json

test: $(STAMP)  ## Run all tests.
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TEST)

lint: $(STAMP)  ## Check style, formatting, types and the rules of import.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## Measure what the engines, the secure sum and private training cost.
	$(BIN)/hansa bench engine
	$(BIN)/hansa bench secagg
	$(BIN)/hansa bench training

proto: $(STAMP)  ## Generate hansa.v1 from ledger.proto; what comes of it is kept.
	cd shared && ../$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. hansa/v1/ledger.proto

clean:  ## Remove .venv, caches and built files; runs/ stays.
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
