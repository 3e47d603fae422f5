# Everything that people and CI run. Each target does all the set-up it needs, in .venv and target.

PYTHON ?= python3
CACHE ?= file
FUZZ_SECONDS ?= 60

BIN := .venv/bin
DEV := .venv/requirements-dev
LINT := .venv/requirements-lint
WHEELS := .venv/requirements-wheels
DOCS := .venv/requirements-docs
# pyright looks at what is installed there.
IN_VENV := VIRTUAL_ENV=$(CURDIR)/.venv PATH=$(CURDIR)/$(BIN):$$PATH
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --requirement

# How many examples `make parity` tries of each property.
N ?= 1000

# What must hold for the fast paths as for CPython's pickle in their place; and the part of it that shows so every day.
BOTH_WAYS := $(addprefix tests/,test_memoize.py test_vectors.py $(addprefix differential/test_,options.py values.py examples.py))
EVERYDAY_WAYS := $(filter %memoize.py %vectors.py %values.py,$(BOTH_WAYS))

# What exercises the unsafe code of src/python/cpython.rs the most.
UNSAFE := $(addprefix tests/,test_pickle_codec.py test_pickle_instances.py test_pickle_models.py test_pickle_natives.py test_pickle_walk.py test_vectors.py differential/test_values.py)

HOST = $(shell rustc --version --verbose | sed -n 's/^host: //p')

# How pytest runs: a worker for each processor, and one more, as many tests wait. Each has servers and a database of its own.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
LLVM = $(shell rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
LLVM_TOOLS = $(shell rustc --print sysroot)/lib/rustlib/$(HOST)/bin
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# Each worker, and each process that a test starts, would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all parity matrix matrix-short docs wheels licences upstream faults load
.PHONY: lint lint-rust lint-python deny msrv fuzz sanitize coverage bench build servers clean

# A target with two # behind its name is in the list, in the order of this file.
help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: build ## a small Django project at work, on files; CACHE=memcached or redis: on a real server
	$(BIN)/python examples/demo.py $(CACHE)

test: build servers ## the tests for every day, Rust and Python, on real caches
	cargo test --locked
	FASTBLETS_BACKENDS=locmem $(PYTEST) -q -m "not slow" --slow-paths $(EVERYDAY_WAYS)
	$(PYTEST) -q -m "not slow"

test-all: build servers ## all tests: what CI runs
	cargo test --locked
	$(PYTEST) -q --slow-paths $(BOTH_WAYS)
	$(PYTEST) -q

faults: build servers ## what fails on purpose, and what comes of it: docs/reliability.md, docs/security.md
	$(BIN)/python -m tests.faults

load: build servers ## many callers of values that expire, and a source that fails: docs/reliability.md
	$(BIN)/python -m tests.load

parity: build ## N=1000 random cases of each kind, beside Djblets
	FASTBLETS_EXAMPLES=$(N) $(BIN)/python -m pytest --timeout 0 tests/differential

matrix: $(DEV) servers ## all tests on every Python here, with every Django
	$(BIN)/python -m tools.matrix all

matrix-short: $(DEV) servers ## the tests for every day, on the oldest pair and the newest
	$(BIN)/python -m tools.matrix short

docs: $(DOCS) ## the pages in docs as a site, in site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheels: $(WHEELS) servers ## what is released: an sdist and wheels, built and tested, in dist
	$(BIN)/python -m tools.matrix wheels

licences: $(DEV) ## THIRD-PARTY.txt, from what Cargo.lock says
	$(BIN)/python -m tools.licences

upstream: build ## Djblets' own tests, of every release in use, on us
	rm -rf build/upstream/wheel
	$(BIN)/maturin build --release --locked --quiet --interpreter $(BIN)/python --out build/upstream/wheel
	set -e; for version in 6.1 6.0 5.2.2; do \
		echo "Djblets $$version"; \
		$(BIN)/python -m tests.upstream.run --version $$version --all --fastblets build/upstream/wheel/*.whl; \
	done

lint: lint-rust lint-python ## formatters, linters, type checkers; or lint-rust, lint-python

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

# The sanitizers are unstable options of the compiler, which a stable one takes only when told that it may. A fuzzer takes
# one processor.
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz: ## each fuzzer of the codec for FUZZ_SECONDS=60
	command -v cargo-fuzz || cargo install --locked --quiet cargo-fuzz
	cargo fuzz build
	cargo fuzz list | xargs -P $$(getconf _NPROCESSORS_ONLN) -I TARGET \
		cargo fuzz run TARGET -- -max_len=8192 -max_total_time=$(FUZZ_SECONDS)

# Instrumented code needs a target of its own, so that what runs while it is built is not. The runtime is gcc's, loaded before
# Python, whose own small objects are left to malloc: else nobody would see where one ends. With debug assertions, so that no
# Python code runs in a walk: src/python/walk.rs. Compiled in parts, on all processors: its speed doesn't matter.
sanitize: build ## what reaches into CPython's objects, under AddressSanitizer
	rm -rf build/sanitize
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Zexternal-clangrt" CARGO_PROFILE_RELEASE_LTO=off \
		CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
		CARGO_TARGET_DIR=target/sanitize $(BIN)/maturin build --release --locked --quiet --target $(HOST) \
		--auditwheel skip --interpreter $(BIN)/python --out build/sanitize
	$(BIN)/python -m zipfile -e build/sanitize/*.whl build/sanitize/package
	PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$$(gcc -print-file-name=libasan.so) \
		PYTHONPATH=build/sanitize/package $(PYTEST) -q $(UNSAFE)

deny: ## licences, sources and known faults of the crates, by cargo-deny
	command -v cargo-deny || cargo install --locked --quiet cargo-deny
	cargo deny --locked --all-features check $(DENY)

msrv: $(DEV) ## whether the oldest Rust that Cargo.toml names compiles it
	rustup toolchain install $(MSRV) --profile minimal
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python CARGO_TARGET_DIR=target/msrv cargo +$(MSRV) check --locked --features python

# The tests in both languages, on an instrumented build: the tests of Python run most of the Rust.
coverage: $(DEV) servers ## which lines of Python and Rust no test runs, in build/coverage
	rm -rf build/coverage
	PATH=$(LLVM_TOOLS):$$PATH LLVM=$(LLVM) $(BIN)/python -m tools.coverage

build: $(DEV) ## the package, in .venv, in release mode
	$(BIN)/maturin develop --release --locked --quiet

bench: build servers ## BENCH=--help: Djblets and fastblets side by side, for docs/performance.md
	$(BIN)/python -m benches.memoize $(BENCH)

servers: $(DEV) ## memcached and redis-server, installed where we may
	$(BIN)/python -m tools.servers install

$(DEV): requirements/dev.txt requirements/oracle.txt requirements/test.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("fastblets needs Python 3.10 or newer")'
	$(PYTHON) -m venv .venv
	$(PIP) $<
	touch $@

$(LINT): requirements/lint.txt $(DEV)
	$(PIP) $<
	touch $@

$(DOCS): requirements/docs.txt $(DEV)
	$(PIP) $<
	touch $@

$(WHEELS): requirements/wheels.txt $(DEV)
	$(PIP) $<
	touch $@

clean: ## remove all that was made
	rm -rf .venv target fuzz/target build dist site
