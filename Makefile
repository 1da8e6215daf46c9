# What people type. `make` alone lists it. Python packages come from the index that this machine's
# own pip is configured for; everything installed stays in .venv and the folders node_modules.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
JS := tests/clients/js
CLIENT := clients/js
LIVE := .venv-live

# Handed on to the command that a target ends in: make serve ARGS="--port 9000"
ARGS ?=
# An interpreter to prefer over the ones that are found.
PYTHON ?=
# Test processes; the suite waits more than it computes, but shares its machine.
WORKERS ?= auto

# Hundreds of processes are started by the suite, and each would compile the sources anew where the
# surroundings forbid to keep what was compiled (container images often do).
unexport PYTHONDONTWRITEBYTECODE

# Lives that `make torture` ends with SIGKILL.
KILLS ?= 200
# Clients whose answers it cuts, last: they print one table at the end.
CUT := $(addprefix tests/clients/torture/test_,use_chat_cuts.py byte_cuts.py socket_cuts.py python_cuts.py durable_cuts.py)

.PHONY: docs-cli docs-compat help serve check test coverage test-live torture dashboard-load autobahn fuzz soak bench bench-fan-out bench-policies bench-outage bench-sockets bench-files bench-tail docs js package tools vendor pictures dist container clean

help:  ## List what people type
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) \
	  | awk -F ':.*## *' '{ printf "  make %-14s %s\n", $$1, $$2 }'
	@echo
	@echo '  ARGS="…" is handed on: make serve ARGS="--port 9000", make test ARGS="-k resume -x"'

serve: $(VENV)/.stamp-run  ## Start the gateway (installs it into .venv the first time)
	@exec $(BIN)/penstock serve $(ARGS)

check: $(VENV)/.stamp-dev  ## Lint, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

SUITE := -n $(WORKERS) --dist worksteal --max-worker-restart 4

test: tools $(VENV)/.stamp-dev $(VENV)/past/.stamp $(JS)/node_modules/.stamp $(CLIENT)/node_modules/.stamp check  ## Everything: check, then the suite
	$(BIN)/pytest $(SUITE) $(ARGS)

coverage: tools $(VENV)/.stamp-dev $(VENV)/past/.stamp $(JS)/node_modules/.stamp $(CLIENT)/node_modules/.stamp  ## The suite, and which lines it runs (half as long again)
	$(BIN)/pytest $(SUITE) --cov --cov-report=term $(ARGS)

test-live: $(VENV)/.stamp-dev $(LIVE)/.stamp-model-server  ## The tests that need a real model server; opt-in
	$(BIN)/pytest -m live tests/live $(ARGS)

torture: tools $(VENV)/.stamp-dev $(JS)/node_modules/.stamp $(CLIENT)/node_modules/.stamp  ## Kill gateways in mid-stream, break providers in every way, cut streams at every byte (an hour)
	PENSTOCK_KILLS=$(KILLS) $(BIN)/pytest tests/faults/test_sigkill.py $(ARGS)
	PENSTOCK_ENDINGS=all $(BIN)/pytest tests/server/test_endings.py $(ARGS)
	PENSTOCK_FAULTS=all $(BIN)/pytest tests/faults/test_providers.py $(ARGS)
	PENSTOCK_SETTLEMENTS=10000 $(BIN)/pytest tests/gateway/test_accounting.py $(ARGS)
	PENSTOCK_ABUSE=all $(BIN)/pytest tests/server/test_abuse_table.py $(ARGS)
	PENSTOCK_CUTS=all $(BIN)/pytest -o asyncio_debug=false $(CUT) $(ARGS)
	PENSTOCK_STRANGERS=all $(BIN)/pytest tests/clients/test_cross_origin.py $(ARGS)

dashboard-load: tools $(VENV)/.stamp-dev  ## The dashboard with ten minutes of mixed load and faults behind it
	PENSTOCK_DASHBOARD_SECONDS=600 $(BIN)/pytest -s tests/clients/torture/test_dashboard_load.py $(ARGS)

autobahn: $(VENV)/.stamp-dev  ## Autobahn's fuzzing client against our WebSocket parts (wants a Python 2.7)
	$(BIN)/python -m tests.conformance.autobahn $(ARGS)

fuzz: $(VENV)/.stamp-dev  ## Look for input that breaks a parser, for an hour (ARGS="--minutes 600")
	$(BIN)/python -W ignore -m tests.fuzz $(ARGS)

soak: tools $(VENV)/.stamp-dev $(JS)/node_modules/.stamp $(CLIENT)/node_modules/.stamp  ## Ten minutes of a silent model behind nginx, with the defaults
	PENSTOCK_SILENCE=300 $(BIN)/pytest tests/clients/torture/test_silence.py $(ARGS)

bench: $(VENV)/.stamp-bench  ## Measure the gateway beside nginx
	$(BIN)/python bench/run.py $(ARGS)

bench-fan-out: $(VENV)/.stamp-bench  ## Measure many readers of few streams, some of them frozen
	$(BIN)/python -m bench.fan_out $(ARGS)

bench-policies: $(VENV)/.stamp-bench  ## Measure what all policies cost a token, against none
	$(BIN)/python -m bench.policies --parts plain --streams 500 $(ARGS)

bench-dialects: $(VENV)/.stamp-bench  ## Measure what a token costs between each two dialects
	$(BIN)/python -m bench.dialects $(ARGS)

bench-metrics: $(VENV)/.stamp-bench  ## Measure what metrics cost a token, a call and a scrape
	$(BIN)/python -m bench.token_path --metrics $(ARGS)
	$(BIN)/python -m bench.scrape

bench-outage: $(VENV)/.stamp-bench  ## Measure what the streams of one target notice when another dies
	$(BIN)/python -m bench.outage $(ARGS)

bench-sockets: $(VENV)/.stamp-bench  ## Measure 10,000 idle WebSockets, and 2,000 generations over 20 of them
	$(BIN)/python -m bench.sockets $(ARGS)

bench-idle: $(VENV)/.stamp-bench  ## Hold 10,000 connections that say nothing, or half of a request
	$(BIN)/python -m bench.idle $(ARGS)

bench-files: $(VENV)/.stamp-bench  ## Measure a file of 1 GiB on its way through a publication
	$(BIN)/python -m bench.files $(ARGS)

bench-tail: $(VENV)/.stamp-bench  ## Measure a log of 10,000 lines a second on its way to 50 readers
	$(BIN)/python -m bench.tail $(ARGS)

docs: $(VENV)/.stamp-dev  ## Check the pages: links, code blocks, error codes, the import table
	$(BIN)/pytest tests/test_docs.py tests/test_layers.py $(ARGS)

js: $(CLIENT)/node_modules/.stamp  ## Build the JavaScript client, run its tests, and renew the copy that the gateway ships
	npm run --silent --prefix $(CLIENT) build && touch $(CLIENT)/dist/.stamp
	npm run --silent --prefix $(CLIENT) bundle
	cd $(CLIENT) && node --test test/

package: tools $(VENV)/.stamp-dev $(JS)/node_modules/.stamp $(CLIENT)/node_modules/.stamp  ## Install the packed JavaScript client where people do: Node.js, TypeScript, Vite, Metro
	PENSTOCK_BUNDLERS=all $(BIN)/pytest tests/clients/test_js_package.py $(ARGS)

vendor:  ## Copy the libraries that the pages carry from their pinned npm packages
	npm ci --prefix tools/vendor --ignore-scripts --no-audit --no-fund --loglevel=error
	node tools/vendor/copy.mjs

dist: $(VENV)/.stamp-dev  ## Build the sdist and the wheel into dist/
	$(BIN)/python -m build --outdir dist $(ARGS)

container:  ## Build the container image (podman, buildah or docker)
	deploy/build-container $(ARGS)

docs-compat: $(VENV)/.stamp-dev  ## Write docs/compatibility.md from what the tests compare
	$(BIN)/python -c 'from pathlib import Path; from tests.wire.matrix import page; Path("docs/compatibility.md").write_text(page())'

docs-cli: $(VENV)/.stamp-dev  ## Write the commands' help into docs/guide/command-line.md
	$(BIN)/python tools/command_line.py

pictures: tools $(VENV)/.stamp-dev  ## Shoot the pages in all their states, to be looked at (build/pictures, docs/chat.png, docs/dashboard.png)
	$(BIN)/python -m tests.clients.pictures $(ARGS)

clean:  ## Remove what was installed and built
	rm -rf $(VENV) $(LIVE) $(JS)/node_modules $(CLIENT)/node_modules $(CLIENT)/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* \
	  build dist bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- What the targets stand on ------------------------------------------------------------------

# The first interpreter that is new enough. Debian keeps the venv module in a package of its own.
define find_python
	python=""; \
	for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then echo 'penstock needs Python 3.11 or newer (PYTHON=… names one).' >&2; exit 1; fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python lacks the venv module; on Debian: apt-get install python3-venv" >&2; exit 1; \
	fi
endef

$(BIN)/python:
	@$(find_python); "$$python" -m venv $(VENV)

# Editable: after this, a change to the sources needs no installation, and `make serve` is immediate.
$(VENV)/.stamp-run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# Dependency groups (PEP 735) need pip 25.1; the one that venv brings may be older.
$(VENV)/.stamp-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@ $(VENV)/.stamp-run

# Old versions of SDKs whose new ones are in the environment. It does not matter to them what that has.
$(VENV)/past/.stamp: pyproject.toml | $(VENV)/.stamp-dev
	@rm -rf $(VENV)/past
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/past --group past 2>/dev/null
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

# A model server that is compiled once (docs/guide/live-test.md).
$(LIVE)/.stamp-model-server: tests/live/build.sh tests/live/tiny_model.py
	@[ -x $(LIVE)/bin/python ] || { $(find_python); "$$python" -m venv $(LIVE); }
	tests/live/build.sh $(LIVE)
	@touch $@

$(JS)/node_modules/.stamp: $(JS)/package.json $(JS)/package-lock.json
	npm ci --prefix $(JS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(CLIENT)/node_modules/.stamp: $(CLIENT)/package.json $(CLIENT)/package-lock.json
	npm ci --prefix $(CLIENT) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# The programs that the suite runs for real: a proxy in front, a browser, SDKs of another language.
tools:
	@export PATH="$$PATH:/usr/sbin:/sbin"; missing=() packages=(); \
	want() { command -v "$$1" >/dev/null || { missing+=("$$1"); packages+=("$$2"); }; }; \
	want nginx nginx-light; want chromium chromium; want curl curl; want node nodejs; want npm npm; \
	want prometheus prometheus; \
	if ! command -v postgres >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then \
	  missing+=(postgres) packages+=(postgresql); \
	fi; \
	if [ ! -x $(BIN)/python ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then \
	  missing+=("python3 -m venv"); packages+=(python3-venv); \
	fi; \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	become=(); if [ "$$(id -u)" -ne 0 ]; then become=(sudo); fi; \
	if ! command -v apt-get >/dev/null || ! command -v "$${become[0]:-true}" >/dev/null; then \
	  printf 'The suite runs programs that are not installed here: %s\n' "$${missing[*]}" >&2; exit 1; \
	fi; \
	echo "Installing $${packages[*]}"; \
	apt() { "$${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$$@" </dev/null; }; \
	quiet=/usr/sbin/policy-rc.d; \
	if [ ! -e $$quiet ]; then \
	  trap '"$${become[@]}" rm -f '$$quiet EXIT; `# the suite starts what it needs: no service shall run by itself` \
	  printf '#!/bin/sh\nexit 101\n' | "$${become[@]}" install -m 755 /dev/stdin $$quiet; \
	fi; \
	apt update; apt install -y --no-install-recommends "$${packages[@]}" >/dev/null
