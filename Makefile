# SociCluster. `make up` shows the product at work, `make test` proves it; `make help` lists the rest.
PYTHON_FILES = __main__.py components examples scripts tests
SHELL_FILES = scripts/setup scripts/stages .ci/run scripts/installer/docker-credential-soci-cluster \
	scripts/lab/node/ecr-credential-provider
# A context's name may have any letters: the shell reads it, and make does not.
export KUBECONTEXT
PYTEST = .venv/bin/python -m pytest -q

.PHONY: help setup build up down doctor bench test slow lint types unit installer index engine cluster faults life registries generate format
help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## install the pinned Python packages into .venv
	@scripts/setup

build: setup ## what the lab and the tests need, from source, into ~/.cache/soci-cluster
	@scripts/lab/lab build

up: setup ## a real cluster here, SOCI on its nodes by `pulumi up`, pod start measured (KUBECONTEXT=name: your cluster, as kubectl finds it)
	@.venv/bin/python scripts/bench/up.py $(if $(KUBECONTEXT),--context "$$KUBECONTEXT")

down: setup ## remove what `make up` made (KUBECONTEXT=name: from your cluster)
	@.venv/bin/python scripts/bench/down.py $(if $(KUBECONTEXT),--context "$$KUBECONTEXT")

doctor: setup ## what is wrong with the nodes, with cause and remedy (KUBECONTEXT=name: of your cluster)
	@.venv/bin/python -m components.doctor $(if $(KUBECONTEXT),--context "$$KUBECONTEXT",--kubectl "scripts/lab/lab kubectl")

bench: build ## cold pod starts on the lab, each way to load an image side by side (hours; ARGUMENTS="--samples 3 --cells 6-*:200mbit")
	@.venv/bin/python scripts/bench/lab_bench.py $(ARGUMENTS) || failed=1; \
	$(if $(ARGUMENTS),,.venv/bin/python scripts/bench/independence.py || failed=1;) \
	exit $${failed:-0}

test: setup ## everything below, with the time of each stage (a quarter of an hour)
	@scripts/stages lint types unit build installer index engine cluster

slow: setup ## the tests of these stages that take long, which `make test` leaves out; CI runs both (three quarters of an hour)
	@PYTEST_ADDOPTS=--slow scripts/stages installer engine cluster

lint: setup ## ruff (lint and format) and shellcheck
	@.venv/bin/ruff check $(PYTHON_FILES)
	@.venv/bin/ruff format --check --quiet $(PYTHON_FILES)
	@.venv/bin/shellcheck $(SHELL_FILES)
	@cat scripts/installer/host/*.sh | .venv/bin/shellcheck -

# The examples import the package as it is installed: tests/engine/test_examples.py has their types checked.
types: setup ## ty
	@.venv/bin/ty check --output-format concise $(filter-out examples,$(PYTHON_FILES))

unit: setup ## components and settings, without an engine (seconds)
	@$(PYTEST) -n 2 tests/unit

installer: build ## agent and host script: fake host root, real containerd binaries, faults at some of the points
	@$(PYTEST) -n 2 tests/installer
	@$(PYTEST) tests/faults --ignore tests/faults/nodes

index: build ## soci-index: the real oras, the lab's soci, registries with habits
	@$(PYTEST) -n 2 tests/index

# Four modules at a time, those of the most tests first: they wait for half of their time, mostly for limits.
engine: build ## the real Pulumi engine runs the real program against a real API server
	@$(PYTEST) -n 4 --dist loadfile tests/engine

cluster: build ## the lab: real nodes, real pods
	@$(PYTEST) tests/cluster

# A part that fails keeps no other from its run: the report has them all.
faults: build ## every test: faults at every call, every containerd, on real nodes (hours); .lab/faults.json
	@rm -f .lab/faults.json
	@$(PYTEST) tests/unit --full || failed=1; \
	$(PYTEST) tests/faults --ignore tests/faults/nodes --full --log-cli-level INFO || failed=1; \
	$(PYTEST) tests/installer --full || failed=1; \
	$(PYTEST) tests/index --full || failed=1; \
	$(PYTEST) tests/engine --full || failed=1; \
	$(PYTEST) tests/cluster --full || failed=1; \
	$(PYTEST) tests/faults/nodes --full || failed=1; \
	exit $${failed:-0}

life: build ## the matrix of a node's life on the lab: each event, each holder of an image; .lab/life.json (two hours and more)
	@$(PYTEST) tests/cluster/test_life.py --full -v

registries: build ## private images from registries as awkward as real ones, half an hour of reads; .lab/registries.json (an hour)
	@$(PYTEST) tests/cluster/test_registries.py --full -v

generate: setup ## write what is made from the declarations: Pulumi.yaml, components/arguments.py, tables
	@.venv/bin/python scripts/docs/generate.py

format: setup ## rewrite the Python files the way `make lint` wants them
	@.venv/bin/ruff format $(PYTHON_FILES)
	@.venv/bin/ruff check --fix $(PYTHON_FILES)
