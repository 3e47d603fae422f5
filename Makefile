# Everything that people and CI run. Each target does all the set-up it needs, in .venv and target.

PYTHON ?= python3
CACHE ?= file
FUZZ_SECONDS ?= 60

BIN := .venv/bin
DEV := .venv/requirements-dev
LINT := .venv/requirements-lint
MATRIX := .venv/requirements-matrix
WHEELS := .venv/requirements-wheels
DOCS := .venv/requirements-docs
# pyright looks at what is installed there.
IN_VENV := VIRTUAL_ENV=$(CURDIR)/.venv PATH=$(CURDIR)/$(BIN):$$PATH
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --requirement

# How many examples `make parity` tries of each property.
N ?= 1000

# What must hold for the fast paths as for CPython's pickle in their place.
BOTH_WAYS := $(addprefix tests/test_,memoize.py vectors.py differential_options.py differential_values.py parity_small.py)

# What exercises the unsafe code of src/python/raw.rs the most.
UNSAFE := $(addprefix tests/test_,pickle_codec.py pickle_instances.py pickle_walk.py vectors.py differential_values.py)

HOST = $(shell rustc --version --verbose | sed -n 's/^host: //p')

.PHONY: help demo test parity matrix matrix-short docs wheels licences upstream faults lint lint-rust lint-python
.PHONY: fuzz sanitize bench build servers clean

help:
	@echo "make demo [CACHE=file|memcached|redis]  see what it does"
	@echo "make test                               Rust and Python tests, on real caches"
	@echo "make faults                             what fails on purpose, and what comes of it: docs/reliability.md, docs/security.md"
	@echo "make parity [N=1000]                    so many random cases of each kind, beside Djblets"
	@echo "make matrix                             the tests on every Python here, with every Django"
	@echo "make matrix-short                       the tests on the oldest pair and the newest"
	@echo "make docs                               the pages in docs as a site, in site"
	@echo "make wheels                             what is released: an sdist and wheels, built and tested, in dist"
	@echo "make licences                           THIRD-PARTY.txt, from what Cargo.lock says"
	@echo "make upstream                           Djblets' own tests, of every release in use, on us"
	@echo "make lint                               formatters, linters, type checkers; or lint-rust, lint-python"
	@echo "make fuzz [FUZZ_SECONDS=60]             each fuzzer of the codec for that long"
	@echo "make sanitize                           what reaches into CPython's objects, under AddressSanitizer"
	@echo "make build                              the package, in .venv, in release mode"
	@echo "make bench [BENCH=--help]               Djblets and fastblets side by side, for docs/performance.md"
	@echo "make clean                              remove all that was made"

demo: build
	$(BIN)/python examples/demo.py $(CACHE)

test: build servers
	cargo test --locked
	$(BIN)/python -m pytest -q --slow-paths $(BOTH_WAYS)
	$(BIN)/python -m pytest

faults: build servers
	$(BIN)/python -m tests.faults

parity: build
	FASTBLETS_EXAMPLES=$(N) $(BIN)/python -m pytest --timeout 0 $(wildcard tests/test_differential_*.py)

matrix matrix-short: $(MATRIX) servers
	$(BIN)/nox --session $@ table

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheels: $(WHEELS) servers
	$(BIN)/nox --session wheels

licences: $(DEV)
	$(BIN)/python -m tests.licences

upstream: build
	rm -rf build/upstream/wheel
	$(BIN)/maturin build --release --locked --quiet --interpreter $(BIN)/python --out build/upstream/wheel
	set -e; for version in 6.1 6.0 5.2.2; do \
		echo "Djblets $$version"; \
		$(BIN)/python -m tests.upstream.run --version $$version --all --fastblets build/upstream/wheel/*.whl; \
	done

lint: lint-rust lint-python

lint-rust: $(DEV)
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --locked --all-targets --features python -- -D warnings

lint-python: build $(LINT)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(IN_VENV) pyright
	$(IN_VENV) pyright --verifytypes fastblets --ignoreexternal >.venv/verifytypes || (cat .venv/verifytypes; false)
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml fastblets._native

# The sanitizers are unstable options of the compiler, which a stable one takes only when told that it may.
fuzz:
	command -v cargo-fuzz || cargo install --locked --quiet cargo-fuzz
	for target in $$(cargo fuzz list); do \
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_len=8192 -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# Instrumented code needs a target of its own, so that what runs while it is built is not. The runtime is gcc's, loaded before
# Python, whose own small objects are left to malloc: else nobody would see where one ends. With debug assertions, so that no
# Python code runs in a walk: src/python/walk.rs.
sanitize: build
	rm -rf build/sanitize
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Zexternal-clangrt" CARGO_PROFILE_RELEASE_LTO=off \
		CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_TARGET_DIR=target/sanitize $(BIN)/maturin build --release --locked --quiet --target $(HOST) \
		--auditwheel skip --interpreter $(BIN)/python --out build/sanitize
	$(BIN)/python -m zipfile -e build/sanitize/*.whl build/sanitize/package
	PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$$(gcc -print-file-name=libasan.so) \
		PYTHONPATH=build/sanitize/package $(BIN)/python -m pytest -q $(UNSAFE)

build: $(DEV)
	$(BIN)/maturin develop --release --locked --quiet

bench: build servers
	$(BIN)/python -m benches.memoize $(BENCH)

servers: $(DEV)
	$(BIN)/python -m tests.servers install

$(DEV): requirements/dev.txt requirements/oracle.txt requirements/test.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("fastblets needs Python 3.10 or newer")'
	$(PYTHON) -m venv .venv
	$(PIP) $<
	touch $@

$(LINT): requirements/lint.txt $(DEV)
	$(PIP) $<
	touch $@

$(MATRIX): requirements/matrix.txt $(DEV)
	$(PIP) $<
	touch $@

$(DOCS): requirements/docs.txt $(DEV)
	$(PIP) $<
	touch $@

$(WHEELS): requirements/wheels.txt requirements/matrix.txt $(DEV)
	$(PIP) $<
	touch $@

clean:
	rm -rf .venv target fuzz/target build dist site
