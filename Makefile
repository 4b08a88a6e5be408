# What one command does for you. Every target sets the project up first.
# FERGI_ROOT=DIR puts data/, preparation/, results/ and figures/ elsewhere; FERGI_DATA and FERGI_REMOTE: see README.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for python in python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$python && break; done)
STAGE_9 := image_preference_binary_classification_based_on_ranking.py

# No library reports home; no server is reachable from outside.
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup reproduce test bench lint

help:
	@echo "make reproduce   set-up, the published files, stages 6 to 10, and the check against the paper"
	@echo "make test        set-up and all tests"
	@echo "make bench       set-up and the measurements that the README quotes"
	@echo "make lint        set-up, formatting and style"
	@echo "make setup       a local environment in $(VENV), made once for each requirements.txt"

setup: $(VENV)/complete

# The stamp comes last: an interrupted set-up is made again from the start.
$(VENV)/complete: requirements.txt
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 is missing: neither python3.11 nor python3 nor python is it. \
	Install it, or name it with: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	echo "$(PYTHON) is not Python 3.11, which requirements.txt needs. Name one with: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' || { \
	echo "$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3.11-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/pip install --requirement requirements.txt
	@touch $@

reproduce: setup
	$(BIN)/python -m fergi.published
	$(BIN)/python preprocess_baseline_data.py
	$(BIN)/python preprocess_reaction_data.py
	$(BIN)/python filter_participants_based_on_AU4.py
	$(BIN)/python $(STAGE_9) --mode released
	$(BIN)/python $(STAGE_9) --strict-lopo
	$(BIN)/python $(STAGE_9)
	$(BIN)/python -m fergi.paper
	$(BIN)/jupyter nbconvert --execute --to html --output-dir "$${FERGI_ROOT:-.}/results" result_analysis.ipynb

test: setup
	$(BIN)/pytest --numprocesses auto

bench: setup
	$(BIN)/python -m benchmarks.stages
	$(BIN)/python -m benchmarks.differences

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
