# Everything that people and CI run. Each target does all the set-up it needs, in .venv and target.

PYTHON ?= python3
CACHE ?= file
FUZZ_SECONDS ?= 60

BIN := .venv/bin
DEV := .venv/requirements-dev
LINT := .venv/requirements-lint
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --requirement

.PHONY: help demo test lint fuzz build servers clean bench faults

help:
	@echo "make demo [CACHE=file|memcached|redis]  see what it does"
	@echo "make test                               Rust and Python tests, on real caches"
	@echo "make faults                             what fails on purpose, and what comes of it: docs/reliability.md"
	@echo "make lint                               formatters, linters, type checkers"
	@echo "make fuzz [FUZZ_SECONDS=60]             each fuzzer of the codec for that long"
	@echo "make build                              the package, in .venv, in release mode"
	@echo "make bench [BENCH=--help]               Djblets and fastblets side by side, for docs/performance.md"
	@echo "make clean                              remove all that was made"

demo: build
	$(BIN)/python examples/demo.py $(CACHE)

test: build servers
	cargo test --locked
	$(BIN)/python -m pytest

faults: build servers
	$(BIN)/python -m tests.faults

lint: build $(LINT)
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --locked --all-targets --features python -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml fastblets._native

# The sanitizers are unstable options of the compiler, which a stable one takes only when told that it may.
fuzz:
	command -v cargo-fuzz || cargo install --locked --quiet cargo-fuzz
	for target in $$(cargo fuzz list); do \
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_len=8192 -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

build: $(DEV)
	$(BIN)/maturin develop --release --locked --quiet

bench: build servers
	$(BIN)/python -m benches.memoize $(BENCH)

servers: $(DEV)
	$(BIN)/python -m tests.servers install

$(DEV): requirements/dev.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("fastblets needs Python 3.10 or newer")'
	$(PYTHON) -m venv .venv
	$(PIP) $<
	touch $@

$(LINT): requirements/lint.txt $(DEV)
	$(PIP) $<
	touch $@

clean:
	rm -rf .venv target fuzz/target build dist
