# Verbs only. Everything runs in .venv, which the first verb makes; Python 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-clients fuzz check format protos docs bench neo4j clean

demo: $(VENV)/.service ## generate a catalogue, build, serve, ask: the main job in a few minutes
	$(BIN)/python examples/demo/demo.py

test: $(VENV)/.dev ## all tests; those that need Neo4j start their own (Maven must be there)
	$(BIN)/python -m pytest $(ARGS)

test-clients: $(VENV)/.dev ## clients in Go and Node, built from protos/, answered as the Python client is (needs go, node and npm)
	KITHKIN_TEST_CLIENTS=1 $(BIN)/python -m pytest tests/clients $(ARGS)

check: $(VENV)/.dev ## format, lint, types, import directions, generated files up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	$(BIN)/python docs/generate.py --check

format: $(VENV)/.dev ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(VENV)/.dev ## generate the client's stubs from protos/
	$(BIN)/python protos/generate.py

docs: $(VENV)/.dev ## generate the reference pages in docs/
	$(BIN)/python docs/generate.py

bench: $(VENV)/.dev ## all benchmarks, one file a question
	$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(VENV)/.dev ## 300,000 calls that nobody would send, against a server of its own
	$(BIN)/python -m tests.fuzz $(ARGS)

neo4j: $(VENV)/.dev ## run a Neo4j to try things with, in the foreground
	$(BIN)/python -m tests.neo4j.server

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Kithkin needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.service: pyproject.toml client/pyproject.toml | $(BIN)/python
	@echo "installing Kithkin with PyTorch into $(VENV): about 6 GB, a few minutes, once"
	$(BIN)/python -m pip install --quiet --editable client --editable '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.service
	$(BIN)/python -m pip install --quiet --editable client --editable '.[all,dev]'
	@touch $@
