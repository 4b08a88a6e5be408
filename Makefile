# What one command does for you. Every target sets the project up first.
# FERGI_ROOT=DIR puts data/, preparation/, results/ and figures/ elsewhere; FERGI_DATA and FERGI_REMOTE: see README.

VENV := .venv
BIN := $(VENV)/bin
# Python 3.11, from the path or from pyenv; without it uv makes the environment, which fetches 3.11 itself.
PYTHON ?= $(shell for python in python3.11 python3 python $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.11*/bin/python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$python && break; done)
UV := $(shell command -v uv || command -v .uv/bin/uv)
NEW_ENVIRONMENT = $(if $(PYTHON),"$(PYTHON)" -m venv --clear $(VENV),"$(UV)" venv --clear --seed --python 3.11 $(VENV))
STAGE_9 := image_preference_binary_classification_based_on_ranking.py

# Stages 6 to 10 need a tenth of what requirements.txt installs, so they do with that until there is more.
NUMBERS := numpy pandas scipy matplotlib seaborn tqdm jupyter
NUMBERS_SETUP := $(if $(wildcard $(VENV)/complete),$(VENV)/complete,$(VENV)/numbers)

# No library reports home.
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup python demo study-demo reproduce test bench bench-scorers bench-tuning bench-faces lint

help:
	@echo "make demo        every script on synthetic data with a planted effect, in demo/; needs no data, weights or GPU"
	@echo "make study-demo  two drawn people take part in a headless Chromium; from the first page to results, in study-demo/"
	@echo "make reproduce   the published files, stages 6 to 10, and the check against the paper"
	@echo "make test        all tests"
	@echo "make bench       the measurements that the README quotes"
	@echo "make bench-scorers  every scorer at its official size, with random weights; a quarter of an hour"
	@echo "make bench-tuning   what tuning a tiny scorer and a tiny generator on pairs gives; a quarter of an hour"
	@echo "make bench-faces    faces with chosen action units, on drawn faces; a quarter of an hour"
	@echo "make lint        formatting and style"
	@echo "make setup       the environment in $(VENV), made once for each requirements.txt; the others make what they need"

setup: $(VENV)/complete

# A stamp comes last, so that an interrupted set-up is made again from the start.
$(VENV)/complete: requirements.txt | python
	$(NEW_ENVIRONMENT)
	$(BIN)/pip install --requirement requirements.txt
	@touch $@

# Beside it what tests, benchmarks and style need.
$(VENV)/dev: requirements-dev.txt $(VENV)/complete
	$(BIN)/pip install --requirement requirements-dev.txt
	@touch $@

$(VENV)/numbers: requirements.txt | python
	$(NEW_ENVIRONMENT)
	$(BIN)/pip install --constraint requirements.txt $(NUMBERS)
	@touch $@

python:
ifneq ($(PYTHON),)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	echo "$(PYTHON) is not Python 3.11, which requirements.txt needs. Name one with: make PYTHON=/path/to/python3.11" >&2; \
	exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' || { \
	echo "$(PYTHON) cannot make virtual environments. On Debian: apt-get install python3.11-venv" >&2; exit 1; }
else ifeq ($(UV),)
	@echo 'Python 3.11 is missing: it is neither on the path (python3.11, python3, python) nor among pyenv'"'"'s versions,' \
	'and there is no uv, which would fetch it. Paste: python3 -m venv .uv && .uv/bin/pip install uv && make setup' \
	'(or: pyenv install 3.11; or name one with: make PYTHON=/path/to/python3.11)' >&2; exit 1
endif

demo: $(VENV)/complete
	$(BIN)/python -m synthetic demo --root demo

study-demo: $(VENV)/dev
	$(BIN)/python -m synthetic study-demo --root study-demo

reproduce: $(NUMBERS_SETUP)
	$(BIN)/python -m fergi.published
	$(BIN)/python preprocess_baseline_data.py
	$(BIN)/python preprocess_reaction_data.py
	$(BIN)/python filter_participants_based_on_AU4.py
	$(BIN)/python $(STAGE_9) --mode released
	$(BIN)/python $(STAGE_9) --strict-lopo
	$(BIN)/python $(STAGE_9)
	$(BIN)/python -m fergi.section_6_1
	$(BIN)/python -m fergi.accuracy_intervals
	$(BIN)/python annotate_preferences.py --held-out
	$(BIN)/python -m fergi.paper
	$(BIN)/jupyter nbconvert --log-level ERROR --KernelManager.transport=ipc --execute --no-input --to html --output-dir "$${FERGI_ROOT:-.}/results" result_analysis.ipynb
	@echo "Read results/result_analysis.html; the figures are in figures/."

# A process for each core already; more threads of small networks would only wait for each other.
test: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadgroup

bench: $(VENV)/dev
	$(BIN)/python -m fergi.published
	$(BIN)/python preprocess_baseline_data.py
	$(BIN)/python preprocess_reaction_data.py
	$(BIN)/python filter_participants_based_on_AU4.py
	$(BIN)/python -m benchmarks.stages --data "$${FERGI_ROOT:-.}"
	$(BIN)/python -m benchmarks.differences
	$(BIN)/python -m benchmarks.clips
	$(BIN)/python -m benchmarks.training
	$(BIN)/python fit_preference_model.py --valence linear
	$(BIN)/python -m benchmarks.annotation --data "$${FERGI_ROOT:-.}" --times 1 10 100

# A quarter of an hour and 4 GB of disk: every scorer at its official size, with random weights.
bench-scorers: $(VENV)/dev
	$(BIN)/python -m benchmarks.scorers

# A quarter of an hour: a tiny scorer and a tiny generator, tuned on pairs with planted and with random labels.
bench-tuning: $(VENV)/dev
	$(BIN)/python -m benchmarks.tuning
	$(BIN)/python -m benchmarks.generator

# A quarter of an hour: face generators on drawn faces, with three seeds; judged, guided, corrected, used.
bench-faces: $(VENV)/dev
	$(BIN)/python -m benchmarks.faces

lint: $(VENV)/dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
