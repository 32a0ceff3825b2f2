# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/ready  ## train five folds of the embedded competition, predict, write and score the submission
	$(BIN)/python train.py --name demo --fold all --resume
	$(BIN)/python predict.py runs/demo
	$(BIN)/python compare.py runs/demo

test: $(VENV)/ready  ## lint, then all tests: CPU, no network, no account
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --dist worksteal

$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or later is needed, $$($(PYTHON) --version) was found; make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

clean:  ## remove the environment; runs and submissions stay
	rm -rf $(VENV)
