# make train: the book's network on MNIST.   make test: lint, types and tests.
# make fast: lint, types, and the tests that take no time, for the edit loop.
# make train-2: the same in two processes of this machine; FLAGS=... are the script's.
# make package: a wheel and an sdist in dist/, installed into a bare environment and tried.
# make docs: the pages as a site in site/, every cell run, every link checked.
# PYTHON=python3.12 make test uses another interpreter, in a .venv of its own.
PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
OUT ?= out

.PHONY: train train-2 test fast package docs clean

train: $(VENV)/installed
	$(BIN)/python experiments/train_mnist.py --out $(OUT)

FREE_PORT := import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); \
	print(s.getsockname()[1])
train-2: $(VENV)/installed
	@port=$$($(BIN)/python -c '$(FREE_PORT)'); \
	run="$(BIN)/python experiments/train_mnist.py --out $(OUT)/train-2 $(FLAGS) \
		--num-processes 2 --coordinator 127.0.0.1:$$port"; \
	$$run --process-id 1 > /dev/null & $$run --process-id 0 && wait $$!

test fast: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(if $(filter fast,$@),-m "not slow")

package: $(VENV)/installed-test
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(PYTHON) -m venv dist/bare
	dist/bare/bin/python -m pip install --quiet dist/*.whl
	cd / && $(CURDIR)/dist/bare/bin/python -m jaxnet
	cd / && $(CURDIR)/dist/bare/bin/python $(CURDIR)/tests/bare_install.py

docs: $(VENV)/installed-docs
	$(BIN)/mkdocs build --strict
	@echo "written: site/index.html"

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[experiments]'
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-* out dist site .cache .hypothesis .pytest_cache .mypy_cache .ruff_cache
