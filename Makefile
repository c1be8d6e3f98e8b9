# Two commands do everything on a machine with nothing but Python:
#   make quickstart    sets up .venv, trains on embedded data, leaves a run folder under runs/
#   make test          sets up .venv, runs all tests
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: quickstart test fuzz kill-test lint setup clean
quickstart: $(READY)
	$(BIN)/lightning-attn fit --config configs/quickstart.yaml

test: $(READY)
	# One thread each: the test processes share the cores among themselves. A file stays with one of them, so that what
	# its tests share is trained once.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# Damaged files for every reader, for an hour: make fuzz MINUTES=5 SEED=2. The suite has a small part of it.
MINUTES ?= 60
SEED ?= 0
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(MINUTES) --seed $(SEED)

# SIGKILL at twenty random moments of each command; an hour on two cores.
kill-test: $(READY)
	KILLS=20 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_killed.py -k goes_on

lint: $(READY)
	$(BIN)/pre-commit run --all-files

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info
