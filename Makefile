# Penstock: `make run` brings the pipeline up and serves the samples, `make test` runs every test.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := shared $(patsubst %/pyproject.toml,%,$(wildcard services/*/pyproject.toml))
MANIFESTS := requirements.lock pyproject.toml $(addsuffix /pyproject.toml,$(PACKAGES))
READY := $(VENV)/.ready
# torch, transformers and what exports models: never in the environment that serves
TRAIN := .venv-train
PEERS := .venv-bench
# uv from PATH, else from a virtual environment of its own: Debian's Python refuses a bare `pip install`
UV := $(shell command -v uv 2>/dev/null || echo .penstock/uv/bin/uv)

export ORT_DISABLE_TELEMETRY := 1
export PYTHONUNBUFFERED := 1
# services and commands start in half the time where bytecode is kept
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-18s %s\n", $$1, $$2}'

.PHONY: run
run: setup system ## Bring everything up, send the sample requests, print each result
	@$(BIN)/penstock demo

.PHONY: stop
stop: setup ## End exactly what `make run` started
	@$(BIN)/penstock down

.PHONY: test
test: setup system ## Run every test: unit, contract, pipeline, integration on a real broker, faults
	@$(BIN)/pytest

.PHONY: check
check: setup ## Lint, types, import rules, schema compatibility, docs: what CI runs before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(addsuffix /src,$(PACKAGES))
	$(BIN)/lint-imports
	$(BIN)/python -m penstock.contracts.export check docs/contracts
	$(BIN)/pytest -q tests/docs

.PHONY: faults
faults: faults-services faults-unordered faults-brokers faults-network faults-zombie faults-poison faults-latency faults-overload ## All long fault suites

.PHONY: faults-services
faults-services: setup system ## 5,000 requests while every service is killed in turn; last line JSON
	@$(BIN)/python -m tests.faults.services

.PHONY: faults-unordered
faults-unordered: setup system ## 20,000 slow requests in any order while instances are killed; last line JSON
	@$(BIN)/python -m tests.faults.unordered

.PHONY: faults-brokers
faults-brokers: setup system ## 20,000 requests while three brokers are killed in turn, then two at once; last line JSON
	@$(BIN)/python -m tests.faults.brokers

.PHONY: faults-network
faults-network: setup system ## Ten minutes of load through a proxy that cuts, swallows, delays and resets; last line JSON
	@$(BIN)/python -m tests.faults.network

.PHONY: faults-zombie
faults-zombie: setup system ## Processes halted beyond their session that go on later; last line JSON
	@$(BIN)/python -m tests.faults.zombie

.PHONY: faults-poison
faults-poison: setup system ## 10,000 bad inputs of every kind among 10,000 good; last line JSON
	@$(BIN)/python -m tests.faults.poison

.PHONY: faults-latency
faults-latency: setup system ## Hops at least once, killed between output and commit; repeats end once; last line JSON
	@$(BIN)/python -m tests.faults.latency

.PHONY: faults-overload
faults-overload: setup system ## Ten times the requests inference can do, for five minutes; last line JSON
	@$(BIN)/python -m tests.faults.overload

.PHONY: soak
soak: setup system ## An hour of mixed load and faults: nothing lost, memory flat; a page with plots, last line JSON
	@$(BIN)/python -m tests.faults.soak

.PHONY: canary
canary: setup system ## 500 requests with personal data, searched for in every place; last line JSON
	@$(BIN)/python -m tests.canary.canary

.PHONY: bench
bench: setup ## Inference by numbers of rows, anonymize beside its peers; each ends with one line of JSON
	@$(BIN)/python -m tests.benchmarks.inference.rows
	@$(BIN)/python tests/benchmarks/bench_anonymize.py

.PHONY: bench-inference
bench-inference: $(PEERS)/.ready ## Inference beside transformers, onnxruntime-genai and llama.cpp; last line JSON
	@$(PEERS)/bin/python -m tests.benchmarks.inference

# torch and the peers never enter .venv; llama.cpp is built for this processor, and left out where it cannot be
$(PEERS)/.ready: requirements-train.lock requirements-bench.lock $(MANIFESTS) | $(UV)
	@test -x $(PEERS)/bin/python || $(UV) venv --quiet --python 3.11 $(PEERS)
	@echo "installing the peers' environment into $(PEERS); llama.cpp is built, which takes minutes"
	@VIRTUAL_ENV=$(PEERS) $(UV) pip install --quiet -r requirements-train.lock -r requirements.lock
	@VIRTUAL_ENV=$(PEERS) $(UV) pip install --quiet --no-deps $(addprefix -e ./,$(PACKAGES))
	@VIRTUAL_ENV=$(PEERS) CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" $(UV) pip install --quiet -r requirements-bench.lock || \
		echo "llama.cpp could not be built and is left out: it needs cmake and a C++ compiler"
	@touch $@

.PHONY: bench-pipeline
bench-pipeline: setup system ## Messages a second and latency of five hops, beside FastStream and bare clients; last line JSON
	@$(BIN)/python -m tests.benchmarks.pipeline

.PHONY: bench-streaming
bench-streaming: setup system ## Time to first token of the checked stream beside the raw one; last line JSON
	@$(BIN)/python -m tests.benchmarks.streaming

.PHONY: eval-equality
eval-equality: setup $(TRAIN)/.ready ## Greedy answers beside those of transformers, token for token, and seeds; last line JSON
	@test -e .penstock/equality/.made || $(TRAIN)/bin/python tests/equality/reference.py .penstock/equality
	@touch .penstock/equality/.made
	@$(BIN)/python -m tests.equality .penstock/equality

.PHONY: eval-semantic-cache
eval-semantic-cache: setup ## Hits and wrong hits of answers found by meaning; ENCODER=FOLDER, data in PENSTOCK_DATA; last line JSON
	@$(BIN)/python -m tests.benchmarks.semantic $(ENCODER)

.PHONY: eval-models
eval-models: $(TRAIN)/.ready ## The shipped models on sources that training never saw, beside baselines; MODEL, SCRATCH, ABLATIONS, REPORT; last line JSON
	@PYTHONPATH=$(subst $(eval ) ,:,$(addsuffix /src,$(PACKAGES))) $(TRAIN)/bin/python -m penstock_tuning evaluate \
		$(addprefix --model ,$(MODEL)) $(addprefix --scratch ,$(SCRATCH)) $(addprefix --ablation ,$(ABLATIONS)) $(addprefix --report ,$(REPORT))

.PHONY: eval-json
eval-json: setup ## 500 answers held to 20 JSON Schemas: all valid, and what that costs; last line JSON
	@$(BIN)/python -m tests.benchmarks.constrained

.PHONY: setup
setup: $(READY) ## The locked environment in .venv

$(READY): $(MANIFESTS) | $(UV)
	@test -x $(BIN)/python || $(UV) venv --quiet --python 3.11 $(VENV)
	@echo "installing the locked environment into $(VENV)"
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps $(addprefix -e ./,$(PACKAGES))
	@touch $@

$(TRAIN)/.ready: requirements-train.lock | $(UV)
	@test -x $(TRAIN)/bin/python || $(UV) venv --quiet --python 3.11 $(TRAIN)
	@echo "installing what trains and exports into $(TRAIN): several GB"
	@VIRTUAL_ENV=$(TRAIN) $(UV) pip install --quiet -r requirements-train.lock
	@touch $@

.penstock/uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; on Debian: apt-get install python3" >&2; exit 1; }
	@python3 -c 'import ensurepip' 2>/dev/null || deploy/system-packages python3-venv
	@python3 -m venv .penstock/uv
	@.penstock/uv/bin/python -m pip install --quiet uv

.PHONY: system
system: ## What the broker needs: a Docker engine that answers, else a JRE and Maven
	@deploy/system-packages broker

.PHONY: lock
lock: ## Resolve again and write requirements.lock, requirements-train.lock and requirements-bench.lock
	$(UV) lock
	$(UV) export --quiet --no-header --no-annotate --no-emit-workspace --all-packages --all-groups --no-group bench -o requirements.lock
	$(UV) export --quiet --no-header --no-annotate --no-emit-workspace --package penstock-tuning --all-extras -o requirements-train.lock
	$(UV) export --quiet --no-header --no-annotate --no-emit-workspace --only-group bench -o requirements-bench.lock

.PHONY: fmt
fmt: setup ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: stop ## Stop, and delete the environment and all local state
	rm -rf $(VENV) $(TRAIN) $(PEERS) .penstock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
