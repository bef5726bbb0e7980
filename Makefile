# make                        the emoji study, from nothing to results/emoji/report.html
# make CONFIG=config/my.yaml  another study
# make app                    the preference study on the emoji pictures, in the browser
# make env | test | lint      the environment alone, the tests, the checks of style
# make test-slurm             the tests on a real Slurm, as root, where Debian's slurmctld, slurmd and munge are
# make rulegraph              the picture of the rules in docs/, after rules have changed
# make pins                   new pins, after requirements.in has changed

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CONFIG := config/emoji.yaml
UV := 0.13.9

.PHONY: study app env prerequisites test test-unit test-dag test-slurm test-browser lint rulegraph pins

study: env
	@python -m workflow.run --configfile $(CONFIG)
	@python -m workflow.done --configfile $(CONFIG)

app: env
	@python -m study_app --study results/emoji --models wuerstchen baseline-ldm --prompts names compositions

env: prerequisites .venv/installed

prerequisites:
	@sh workflow/prerequisites.sh

# Exactly the pinned packages, each checked by its hash.
.venv/installed: requirements.txt | prerequisites
	python3.11 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	.venv/bin/uv pip sync --python .venv/bin/python --require-hashes --compile-bytecode requirements.txt
	@touch $@

test: test-unit test-dag

# `time` says how long each group took
test-unit: env
	time python -m pytest

test-dag: env
	time python -m pytest -m dag

test-slurm: env
	time python -m pytest -m slurm tests/test_slurm.py

# needs Debian's chromium, and postgresql for what concerns it
test-browser: env
	time python -m pytest -m browser

lint: env
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint

rulegraph: env
	python -m workflow.rulegraph

pins: env
	uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url requirements.in -o requirements.txt
	python -m workflow.pins
