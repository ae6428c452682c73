# Two commands do everything, set-up included: `make run` and `make test`.
# `make run TORCH=cpu` takes torch without CUDA, which on Linux is gigabytes less to download.
PYTHON ?= python3
TORCH ?=
unexport PYTHONDONTWRITEBYTECODE # modules are compiled once, and not in each process that a test starts
ENVIRONMENT := .venv
IN := $(ENVIRONMENT)/bin

.PHONY: run test test-long lint docs install clean

run: $(ENVIRONMENT)/runs ## train FSL-SAGE on the bundled digits images
	$(IN)/python main.py
	@echo 'commands like these need the environment: source $(ENVIRONMENT)/bin/activate'

test: install ## the test suite, five minutes on two cores
	$(IN)/python -m pytest -n auto --dist worksteal

test-long: install ## every case of the long tests, more drawn examples, all commands and benchmarks, and whether small faults are noticed
	$(IN)/python -m pytest -n auto --dist worksteal -m 'long or not long' --hypothesis-profile=nightly
	.ci/long
	$(IN)/python tests/mutations.py

lint: install ## what CI checks beside the tests
	$(IN)/ruff check .
	$(IN)/ruff format --check .
	$(IN)/mypy
	$(IN)/python tests/dead_code.py

docs: $(ENVIRONMENT)/documents ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(IN)/mkdocs build --quiet

install: $(ENVIRONMENT)/installed ## .venv with everything in it

ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH): must be cpu, or not given)
endif
# The local version 2.13.0+cpu of that index is what torch==2.13.0 of the constraints takes, where it is offered.
INDEX := $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/cpu)
# Not compiled: most modules of these packages nobody imports, and the others are compiled when they first are.
PIP_INSTALL = $(IN)/python -m pip install --quiet --no-compile $(INDEX) --constraint constraints.txt --editable

$(ENVIRONMENT)/runs: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedsplit needs Python 3.11 or later")'
	$(PYTHON) -m venv $(ENVIRONMENT)
	@echo "installing what runs and figures need into $(ENVIRONMENT); takes minutes$(if $(TORCH),, (on Linux gigabytes of CUDA; make run TORCH=cpu goes without))"
	$(PIP_INSTALL) '.[plot]'
	touch $@

$(ENVIRONMENT)/installed: $(ENVIRONMENT)/runs
	$(PIP_INSTALL) '.[all]'
	touch $@ $(ENVIRONMENT)/documents

$(ENVIRONMENT)/documents: $(ENVIRONMENT)/runs
	$(PIP_INSTALL) '.[docs]'
	touch $@

clean: ## remove the environment; results in saves/ and data in datas/ stay
	rm -rf $(ENVIRONMENT)
