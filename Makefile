# Each target sets up what it needs: a virtual environment in .venv, refreshed when a
# distribution's metadata changes. `make test PYTHON=python3.12 VENV=.venv-3.12` tests with another
# interpreter, and `make test-all` with each of PYTHONS that is installed.
PYTHON ?= python3
PYTHONS ?= python3.11 python3.12 python3.13
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DISTRIBUTIONS := $(wildcard plugins/*/setup.cfg)
METADATA := setup.cfg pyproject.toml requirements-dev.txt $(DISTRIBUTIONS)

# The file or URL that the demo fills.
STORE ?= demo/cluster.db
# A part of the benchmarks, as in `make bench ONLY=sqlite`. How costs grow is measured up to a million
# objects if it is asked for by name, as in `make bench ONLY=growth LARGEST=10000`, else to 100,000.
ONLY ?=

# How many files of tests run at a time: more than there are cores, since most of them wait, for
# servers, for processes, for a TTL.
JOBS ?= 4
# How many times as long `make soak` tries what `make test` tries in short.
LONG ?= 50

.PHONY: help demo check test test-all soak lint format dist bench plots docs clean

help:
	@echo "make demo      a first look: stores, lists and watches objects in $(STORE)"
	@echo "make check     linters, types and the quick tests: the inner loop, under two minutes"
	@echo "make test      linters, types and all tests: what CI runs, under 20 minutes"
	@echo "make test-all  make test with each of $(PYTHONS) that is installed"
	@echo "make soak      fuzzers, state machines and faults for hours; LONG=$(LONG) times make test"
	@echo "make lint      linters and types only"
	@echo "make format    format the code"
	@echo "make dist      build all distributions in dist/ and check them"
	@echo "make bench     measure, and write bench-results.json; ONLY=NAME picks a part"
	@echo "make plots     measure the cache and how costs grow, and draw both in docs/benchmarks"
	@echo "make docs      write docs/_build/html"
	@echo "make clean     remove what the other targets made"

# One pip command for all: the distributions require each other and are on no index yet.
$(STAMP): $(METADATA)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "revstore needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt \
	    -e '.[cli,testing,metrics,tracing,zstd]' $(foreach cfg,$(DISTRIBUTIONS),-e $(dir $(cfg)))
	@touch $@

demo: $(STAMP)
	@STORE='$(STORE)' $(BIN)/python examples/demo.py

check: lint
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" --timeout 20

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-all:
	@set -e; for python in $(PYTHONS); do \
	    if $$python --version >/dev/null 2>&1; then \
	        $(MAKE) test PYTHON=$$python VENV=.venv-$$(basename $$python); \
	    else echo "$$python is not installed: skipped"; fi; \
	done

soak: $(STAMP)
	REVSTORE_TEST_LONG=$(LONG) $(BIN)/python -m pytest --timeout 36000 \
	    tests/project/test_fuzz.py tests/cacher/test_machine.py tests/sqlite/test_crash.py \
	    tests/backends/test_kills.py tests/etcd2/test_histories.py tests/etcd3/test_faults.py \
	    tests/etcd3/test_cluster.py tests/etcd3/test_machine.py tests/etcd3/test_setups.py \
	    tests/serve

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

dist: $(STAMP)
	rm -rf dist
	for each in . $(dir $(DISTRIBUTIONS)); do \
	    $(BIN)/python -m build --no-isolation --outdir dist $$each || exit 1; \
	done
	REVSTORE_TEST_DIST='$(CURDIR)/dist' $(BIN)/python -m pytest tests/project/test_packaging.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ONLY)

# What grows too fast is drawn too, and only then fails.
plots: $(STAMP)
	@$(BIN)/python -m benchmarks cacher growth; status=$$?; \
	    $(BIN)/python -m benchmarks.plot && exit $$status

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

clean:
	rm -rf .venv .venv-* build dist demo docs/_build benchmarks/.data .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf core/*.egg-info plugins/*/build plugins/*/src/*.egg-info bench-results.json .coverage
