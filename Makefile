# Two commands do everything, set-up included: `make run` and `make test`.
PYTHON ?= python3
ENVIRONMENT := .venv
IN := $(ENVIRONMENT)/bin

.PHONY: run test test-long lint install clean

run: install ## train FSL-SAGE on the bundled digits images
	$(IN)/python main.py

test: install ## the test suite, five minutes on two cores
	$(IN)/python -m pytest -n auto --dist worksteal

test-long: install ## every case of the long tests, more drawn examples, and whether small faults are noticed
	$(IN)/python -m pytest -n auto --dist worksteal -m 'long or not long' --hypothesis-profile=nightly
	$(IN)/python tests/mutations.py

lint: install ## what CI checks beside the tests
	$(IN)/ruff check .
	$(IN)/ruff format --check .
	$(IN)/mypy

install: $(ENVIRONMENT)/installed ## .venv with everything in it

$(ENVIRONMENT)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedsplit needs Python 3.11 or later")'
	$(PYTHON) -m venv $(ENVIRONMENT)
	$(IN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

clean: ## remove the environment; results in saves/ and data in datas/ stay
	rm -rf $(ENVIRONMENT)
