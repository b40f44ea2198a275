PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
# Each worker takes tests that lie side by side, which share runs, and then what others have left.
IN_PARALLEL := --numprocesses 2 --dist worksteal

# Without this, two processes that use torch spin against each other on the same cores.
export OMP_WAIT_POLICY := PASSIVE
# For what has the machine to itself, as most people's trainings do.
ALONE := env -u OMP_WAIT_POLICY

.PHONY: demo test slow lint bench clean

demo: $(STAMP)
	$(BIN)/retrac train --dataset digits --limit 512 --output $(DEMO)/run \
		--epochs 24 --checkpoint-every 6 --batch-size 16
	$(BIN)/retrac generate $(DEMO)/run --count 16 --seed 1 --output $(DEMO)/samples
	$(BIN)/retrac attribute $(DEMO)/run --queries generated:8 --query-seed 1 --plan fast \
		--output $(DEMO)/attribution

test: $(STAMP)
	$(BIN)/python -m pytest $(IN_PARALLEL)

slow: $(STAMP)
	$(BIN)/python -m pytest $(IN_PARALLEL) -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(ALONE) $(BIN)/python -m benchmarks.cost
	$(ALONE) $(BIN)/python -m benchmarks.fitting
	$(ALONE) $(BIN)/python -m benchmarks.leaderboard
	$(ALONE) $(BIN)/python -m benchmarks.bytes
	$(ALONE) $(BIN)/python -m benchmarks.indexed

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(DEMO)
