# Every target runs in .venv. The environment decides which index and which torch build pip uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-for-demo
# Many processes share few cores: let idle threads sleep instead of spinning.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_DISABLE_TELEMETRY ?= 1
export TRACKIO_DISABLE ?= 1
# Commands start many processes, and without bytecode files each would compile the packages again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: gateway-fuzz help install demo demo-full test lint types unit test-slow kills clients conformance mcpb container-check fuzz api-fuzz serve clean page-check train-kills train-memory servers reference

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

install: $(STAMP)  ## create .venv and install everything at the pinned versions

$(STAMP): pyproject.toml constraints.txt deploy/install.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python deploy/install.py
	@touch $@

# The demos need no tests, linters or telemetry. A full installation serves them too.
$(DEMO_STAMP): pyproject.toml constraints.txt deploy/install.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python deploy/install.py demo
	@touch $@
INSTALLED_FOR_DEMO := $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO_STAMP))

demo: $(INSTALLED_FOR_DEMO)  ## show on a real model what this is for, in five minutes (FRESH=1 starts over, MODEL= takes another)
	$(BIN)/python -m demo $(if $(FRESH),--fresh) $(if $(MODEL),--model '$(MODEL)')

demo-full: $(INSTALLED_FOR_DEMO)  ## run the whole loop on a real model: sample, score, train, measure; then make the demo's adapters again
	$(BIN)/python -m demo.full $(if $(FRESH),--fresh)

test: install lint types unit  ## run lint, type checks and tests, as CI does

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# One worker more than a small machine has cores, because tests often wait for servers and timers. One thread per
# process.
WORKERS ?= 3
unit: export OMP_NUM_THREADS = 1
unit: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: install  ## run the tests that need the models of `make demo-full` (several minutes)
	$(BIN)/python -m pytest -m slow --timeout 1800

kills: install  ## kill -9 a run a hundred times and check its log and journal after each (minutes)
	$(BIN)/python -m pytest tests/agent/rollout/test_kills.py -m slow -s --timeout 1800

train-kills: install  ## kill -9 training at ten random steps; the weights must equal an unbroken run's (minutes)
	$(BIN)/python -m pytest tests/trainer/stages/test_interrupted.py -m slow --timeout 1800

train-memory: install  ## train on logs of 10,000 and 100,000 episodes and compare the peak memory (minutes, 5 GB of disk)
	$(BIN)/python -m pytest tests/trainer/stages/logged/test_memory.py -m slow -s --timeout 7200

clients: install  ## run outside clients and frameworks (from PyPI and npm) against the service and gateway
	$(BIN)/python -m pytest tests/clients -m clients --timeout 600

conformance: install  ## run the official MCP conformance suite (from npm) against the rule service
	$(BIN)/python -m pytest -m clients -s --timeout 600 tests/clients/test_conformance.py

mcpb: install  ## build dist/ascl-rules-VERSION.mcpb, the bundle for desktop hosts (needs npx)
	$(BIN)/python deploy/mcpb_bundle.py

container-check: install  ## build the images in a chroot and run compose's services (needs root, buildah, debootstrap)
	PYTHONPATH=. nice -n 10 $(BIN)/python deploy/container_check.py

page-check: install  ## test the page in an installed Chromium (or ASCL_CHROMIUM), with axe
	$(BIN)/python -m pip install --quiet -c constraints.txt 'playwright>=1.60' 'axe-playwright-python>=0.1.8'
	$(BIN)/python -m pytest tests/rule_server/api/test_page_browser.py -m browser --timeout 300

servers: install  ## test the agent against `transformers serve` and llama.cpp (several minutes)
	@# llama.cpp's server as a prebuilt wheel, in a separate environment; the models come from `make demo-full`.
	test -x build/llama/bin/python || $(PYTHON) -m venv build/llama
	build/llama/bin/python -m pip install --quiet xllamacpp==2026.10.11549
	$(BIN)/python -m pytest -m slow tests/e2e/test_real_servers.py --timeout 1800 -rA

FUZZ_SECONDS ?= 120
fuzz: install  ## test the rule loader with mutated files, for FUZZ_SECONDS (120)
	$(BIN)/python -m pip install --quiet -c constraints.txt 'atheris>=2.3'
	mkdir -p build/fuzz/corpus build/fuzz/tmp
	TMPDIR=$(CURDIR)/build/fuzz/tmp PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz_rule_files.py \
	    -timeout=5 -len_control=0 -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/ build/fuzz/corpus
	rm -rf build/fuzz/tmp

gateway-fuzz: install  ## play random conversations and upstreams through the gateway for FUZZ_SECONDS (120)
	$(BIN)/python -m tests.fuzz.fuzz_gateway --seconds $(FUZZ_SECONDS)

api-fuzz: install  ## send ASCL_API_EXAMPLES (500) generated requests to every REST route
	ASCL_API_EXAMPLES=$${ASCL_API_EXAMPLES:-500} $(BIN)/python -m pytest tests/rule_server/api/test_openapi.py --timeout 1800

reference: install  ## regenerate docs/reference from the code
	$(BIN)/python -m agent.episode.reference > docs/reference/episode.md
	$(BIN)/python -m tests.project.module_map > docs/reference/modules.md
	$(BIN)/ascl-rules settings --markdown > docs/reference/settings.md
	$(BIN)/python -m trainer.reports.template_table > docs/reference/templates.md

serve: install  ## serve the rules on 127.0.0.1:8808
	$(BIN)/ascl-rules serve

clean:  ## remove .venv and build outputs, but not your runs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
