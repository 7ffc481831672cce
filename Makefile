# Everything sets itself up: `make train` and `make test` need Python 3.11 or newer, make and git, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install browser train test test-fast test-exhaustive test-adapters test-vllm coverage lint bench golden docs clean

help:
	@echo "make install          a virtual environment in $(VENV) with cohort and all it needs"
	@echo "make train            the main job: post-train the embedded model, in about three minutes"
	@echo "make test             lint, types and the whole test suite"
	@echo "make test-fast        the test suite without its slow runs"
	@echo "make test-exhaustive  long sweeps that are not part of the suite"
	@echo "make test-adapters    adapters to packages that the suite does without, each in an environment of its own"
	@echo "make test-vllm        the engine against a real vLLM server on the CPU, in an environment of its own (about 3 GB)"
	@echo "make coverage         the test suite, and which lines it reaches"
	@echo "make lint             lint and types alone"
	@echo "make bench            cohort against TRL, in the cases that have a target (BENCH=--no-longest for fewer)"
	@echo "make docs             the reference from docstrings, in build/docs"
	@echo "make golden           the test vectors alone (COHORT_GOLDEN=FOLDER for others)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cohort needs Python 3.11 or newer; name one with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and by itself: a range for it would bring the build for GPUs, several GB of it.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)
	@echo "== done: $(BIN)/cohort"

# The viewer is tested in Chromium. Where there is none, one is fetched if that is possible (as root on Debian by apt-get,
# otherwise by Playwright); where not, the tests say so, and all others are made. COHORT_BROWSER names one.
browser: install
	@$(BIN)/python -m tests.browser

train: install
	@echo "== post-training the embedded model with GRPO"
	@$(BIN)/cohort train

lint: install
	@echo "== ruff"
	@$(BIN)/ruff format --check src tests docs benchmarks examples
	@$(BIN)/ruff check src tests docs benchmarks examples
	@echo "== mypy"
	@$(BIN)/mypy

# Two workers of one thread each: with more threads than cores they would wait for each other.
test: lint browser
	@echo "== tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: install browser
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not exhaustive"

test-exhaustive: install
	@$(BIN)/python -m pytest -m exhaustive

# verifiers and OpenEnv need different versions of one package. Each has an environment in front of $(VENV)'s packages.
$(VENV)-%/.installed: constraints-%.txt $(STAMP)
	@echo "== setting up $(VENV)-$*"
	@$(PYTHON) -m venv $(VENV)-$*
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(VENV)-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/cohort.pth"
	@$(VENV)-$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints-$*.txt
	@touch $@

test-adapters: $(VENV)-verifiers/.installed $(VENV)-openenv/.installed
	@PYTHONPATH=src OMP_NUM_THREADS=1 $(VENV)-verifiers/bin/python -m pytest tests/environments/adapters
	@PYTHONPATH=src OMP_NUM_THREADS=1 $(VENV)-openenv/bin/python -m pytest tests/environments/adapters/test_openenv.py

# Its torch has no room for the packages around it that were made for another one.
$(VENV)-vllm/.installed: constraints-vllm.txt
	@echo "== setting up $(VENV)-vllm"
	@$(PYTHON) -m venv $(VENV)-vllm
	@$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check --requirement constraints-vllm.txt
	@$(VENV)-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: install $(VENV)-vllm/.installed
	@COHORT_VLLM_PYTHON=$(abspath $(VENV)-vllm/bin/python) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m vllm tests/engine/vllm

coverage: install browser
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov=cohort --cov-report=term-missing:skip-covered

# TRL and matplotlib are for the benchmarks alone.
bench: install
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python -m benchmarks.table $(BENCH)

golden: install
	@$(BIN)/python -m pytest tests/golden

docs: install
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m pdoc --docformat google --output-directory build/docs cohort
	@echo "== build/docs/index.html"

clean:
	rm -rf $(VENV) $(VENV)-verifiers $(VENV)-openenv $(VENV)-vllm build dist .pytest_cache .mypy_cache .ruff_cache
