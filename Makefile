# Every target makes its own environment first: nothing but python3 (with venv) and g++ is needed.
.DEFAULT_GOAL := help
.PHONY: help demo test fuzz lint format docs bench wheel clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
READY := $(VENV)/ready
INSTALLED := $(VENV)/installed
CXX_FILES := $(wildcard csrc/*.h csrc/*/*.h csrc/*/*.inc csrc/*/*.cpp csrc/*/*.cu csrc/*/*.cuh)

help:
	@echo "make demo    the digits demo: trains, extracts, verifies; shows: demo/report.html, overview.png"
	@echo "make test    lint, types and every test, the wheel's included"
	@echo "make fuzz    property tests on random cases, until one fails or Ctrl-C"
	@echo "make bench   the benchmarks (FASTCONV_BENCH_SMOKE=1: small sizes)"
	@echo "make docs    the documentation, in build/site"
	@echo "make lint    the checks of make test that run nothing;  make format: mend what can be mended"
	@echo "make wheel   dist/fastconv-*.whl;  make clean: remove environment, builds and caches"

# torch first: the build runs against the very torch that is used, hence without isolation
$(READY): pyproject.toml constraints.txt setup.py $(CXX_FILES)
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) setuptools wheel ninja
	$(PIP) --no-build-isolation -e '.[demo]'
	@touch $@

$(INSTALLED): $(READY)
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/fastconv demo digits --out demo

test: lint
	$(BIN)/python -m pytest

fuzz: $(INSTALLED)
	while $(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile=random; do :; done

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python -m pytest benchmarks --benchmark-only -s

wheel: $(INSTALLED)
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist demo *.egg-info fastconv/*.so .*_cache .hypothesis
