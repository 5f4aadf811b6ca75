# The commands of this repository. Each does all its own set-up on a fresh Debian 12 / Ubuntu 22.04 or newer machine that
# has Python 3.10+, a C++20 compiler and this clone; `scripts/setup` installs what is missing. Everything goes to build/.
#
#   make demo     the main job on a real trace          make test     every test there is
#   make build    the library and build/bin/flashmla    make help     the rest
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
JOBS ?= $(shell nproc)
CMAKE_ARGS ?=# extra options for `make build`, such as -DFLASHMLA_CUDA=OFF
TEST_ARGS ?=# options of scripts/test, such as --only ctest
DEMO_TRACE ?= data/mooncake_conversation_cut.jsonl
VENV := build/venv

export PYTHON JOBS

.PHONY: help
help:  ## this list
	@printf 'Targets:\n'
	sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name what; do printf '  make %-8s %s\n' "$$name" "$$what"; done
	printf 'Variables: PYTHON, JOBS, CMAKE_ARGS, TEST_ARGS, DEMO_TRACE, FLASHMLA_SKIP_SETUP=1 (use the machine as it is)\n'

.PHONY: build
build:  ## the library, the command line tool build/bin/flashmla (with CUDA where nvcc is)
	@scripts/setup build
	scripts/configure build -DFLASHMLA_BUILD_TOOLS=ON $(CMAKE_ARGS)
	cmake --build build --parallel $(JOBS)
	printf 'built: build/bin/flashmla\n'

.PHONY: demo
demo: build  ## serve a cut of a real trace on the best backend of this machine; picture in build/demo.svg
	@build/bin/flashmla replay $(DEMO_TRACE) --demo --picture build/demo.svg

.PHONY: test
test:  ## every test: C++, lint, goldens, Python, sanitizers, install and examples; ends with totals
	@scripts/setup test
	scripts/test $(TEST_ARGS)

.PHONY: lint
lint:  ## the rules of the house
	@scripts/setup lint
	scripts/lint

.PHONY: format
format:  ## clang-format everything in place
	@scripts/setup lint
	scripts/lint --fix-format

.PHONY: wheel
wheel:  ## the Python package as one wheel in dist/
	@scripts/setup test
	$(VENV)/bin/python -m pip wheel --no-deps --wheel-dir dist .
	ls -l dist

.PHONY: clean
clean:  ## remove everything that the other targets made
	@rm -rf build dist
