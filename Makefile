# Two commands do everything: `make train` and `make test`. Both set up .venv first, once.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c '$(SUPPORTED)' 2>/dev/null && echo $$name && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PEERS := .venv-peers

.PHONY: train test setup check peers bench clean

train: setup
	$(RUN) -m ztb_jax.training $(ARGS)

test: setup
	$(RUN) -m pytest -n 2 $(ARGS)

setup: $(READY)

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright
	$(RUN) -m pytest README.md docs

peers: $(PEERS)/.ready

bench: setup peers
	$(RUN) -m benchmarks env
	$(RUN) -m benchmarks train
	$(RUN) -m benchmarks learn

$(READY): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV), which takes a minute or two ..."
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(PEERS)/.ready: benchmarks/peers.txt | $(READY)
	test -x $(PEERS)/bin/python || $(RUN) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS)
