# make demo   film the synthetic performer, train its avatar, write workspace/demo/07_report/report.html
# make test   all tests      make lint   style and types      make bench   every script in benchmarks/
#
# Each of them first makes .venv when it is missing or its requirements changed.  Other wishes:
#   make demo PYTHON=/opt/python3.12/bin/python3        another Python
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130    another build of torch than the one chosen below

SHELL := /bin/sh
.PHONY: demo test lint bench

PYTHON ?= $(shell for python in python3.11 python3.12 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1 \
	&& command -v $$python && break; done)

# Without a GPU the CPU build of torch saves gigabytes; with one, PyPI's own build is the right one.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)

# A stamp is written last and named after the content of the requirements: an interrupted installation has none and is
# begun anew, changed requirements have another one and are installed on top.
STAMP := .venv/ready-$(shell cksum < requirements.txt | tr -d ' ')
DEV_STAMP := .venv/ready-dev-$(shell cat requirements.txt requirements-dev.txt | cksum | tr -d ' ')
RUN := .venv/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

demo: $(STAMP)
	$(RUN) pipeline.py run --subject demo --preset demo

test: $(DEV_STAMP)
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(DEV_STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy .

bench: $(STAMP)
	@failed=; for script in benchmarks/[!_]*.py; do \
		echo "== $$script"; PYTHONPATH=. $(RUN) $$script || failed="$$failed $$script"; done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

$(STAMP):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found (Debian 12: apt-get install" \
		"python3 python3-venv); if it is elsewhere: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@sh .ci/system-packages "$(PYTHON)"
	@ls .venv/ready-* >/dev/null 2>&1 || { echo "making .venv with $(PYTHON); the first time takes some minutes"; \
		"$(PYTHON)" -m venv --clear .venv; }
	@rm -f .venv/ready-*
	@# torch first and by itself: whatever comes later finds it there and does not fetch a build for another machine.
	@# pip waits long for an index that does not answer, so it is only told of one that does.
	@index="$(TORCH_INDEX)"; \
	if test -n "$$index" && ! $(RUN) .ci/answers.py "$$index/torch/"; then \
		echo "$$index does not answer; installing torch from pip's own indexes"; index=; fi; \
	echo "installing torch"; $(PIP) $${index:+--extra-index-url "$$index"} "$$(grep '^torch==' requirements.txt)"
	@echo "installing requirements.txt"
	@$(PIP) -r requirements.txt
	@touch $@

$(DEV_STAMP): $(STAMP)
	@rm -f .venv/ready-dev-*
	@echo "installing requirements-dev.txt"
	@$(PIP) -r requirements-dev.txt
	@touch $@
