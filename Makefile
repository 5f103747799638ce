# demo: a real loop of three generations.   test, check, fix: the three commands of a contributor.
# The first run makes .venv. PYTHON=python3.12 picks the Python; DEVICE=cuda installs torch for a GPU; GLASS=process
# (or docker) picks the glass of the demo; WATCH=1 shows it live as a page.
PYTHON ?= $(or $(wildcard .venv/bin/python),python3)
BOOTSTRAP = $(PYTHON) -I bellglass/bootstrap.py $(if $(DEVICE),--device $(DEVICE))
BIN = .venv/bin

.PHONY: demo test check fix venv image clean

demo:
	@$(BOOTSTRAP)
	@$(BIN)/bellglass demo $(if $(GLASS),--glass $(GLASS)) $(if $(WATCH),--watch)

test:
	@$(BOOTSTRAP) --with dev
	@$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow and not docker"

check:
	@$(BOOTSTRAP) --with dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

fix:
	@$(BOOTSTRAP) --with dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_config.py
	$(BIN)/python docs/make_errors.py

venv:
	@$(BOOTSTRAP) --with dev

image:
	@$(BOOTSTRAP)
	@$(BIN)/bellglass image build $(if $(DEVICE),--device $(DEVICE))

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
