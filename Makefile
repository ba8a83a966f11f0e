# Each target sets up what it needs, from package registries alone. Needs Linux, root, Python 3.11+ and Go 1.26+.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Their doctests run where torch is.
NEED_TORCH := operator/conch/packaging/source/torch_*.py operator/conch/packaging/source/weights.py
# What runs real processes may fail once on a busy machine. That is told, with its traceback, and hides nothing else.
ONCE_MORE := --reruns 1 --rerun-show-tracebacks
# Only Triton's Python backend has what this imports.
RUN_BY_TRITON := operator/conch/packaging/text/models/tokenise_model.py

.PHONY: help demo demo-keep test test-all samples check unit contract packaging integration e2e bench bench-operator bench-delivery bench-gateway bench-rollout bench-autoscaler bench-packaging load-gateway load-rollouts cluster cluster-down generate lock clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/ready ## From nothing to a served model, on a real cluster
	$(RUN) -m tests.demo

demo-keep: $(VENV)/ready ## The same, and the model stays
	$(RUN) -m tests.demo --keep

test: check unit contract packaging integration e2e ## Everything that CI runs

test-all: test samples ## The same, and every sample of manifests/samples on the local cluster
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m pytest tests/samples

samples: $(VENV)/ready requirements/torch.txt ## Train and package manifests/samples, into .cluster/samples
	$(RUN) -m tests.packaging.environment -m tests.packaging.samples .cluster/samples

check: $(VENV)/ready ## Format, lint, types, import rules, generated files
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo 2>/dev/null || $(VENV)/bin/lint-imports
	$(RUN) -m tests.cluster build-programs
	$(RUN) -m tests.generate --check

unit: $(VENV)/ready ## Tests without any process of their own: unit, golden, simulation
	$(RUN) -m pytest -n 2 --dist worksteal --doctest-modules operator $(addprefix --ignore-glob=,$(NEED_TORCH) $(RUN_BY_TRITON)) tests/unit tests/golden tests/sim

contract: $(VENV)/ready ## Tests against the real Triton, Envoy and stores on loopback
	$(RUN) -m tests.cluster build-programs
	$(RUN) -m pytest $(ONCE_MORE) -n 2 --dist loadfile tests/contract

packaging: $(VENV)/ready requirements/torch.txt ## Tests with torch, in an environment of its own (2.8 GB, once per machine)
	$(RUN) -m tests.packaging.environment -m pytest --doctest-modules $(NEED_TORCH) tests/packaging

integration: $(VENV)/ready ## Tests against a real API server on loopback
	$(RUN) -m tests.cluster build-programs
	$(RUN) -m pytest $(ONCE_MORE) -n 2 --dist loadfile -m "not alone" tests/integration
	$(RUN) -m pytest $(ONCE_MORE) -m alone tests/integration

e2e: $(VENV)/ready ## Tests on the whole local cluster
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m pytest $(ONCE_MORE) -n 3 -m "not alone" tests/e2e tests/cluster
	$(RUN) -m pytest $(ONCE_MORE) -m alone tests/e2e tests/cluster

bench: $(VENV)/ready ## Measure on the local cluster (not part of `make test`)
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m tests.perf.model_pod
	$(RUN) -m tests.perf.drift

bench-operator: $(VENV)/ready ## Measure the operator on a thousand objects, 20 min (not part of `make test`)
	$(RUN) -m tests.perf.scale --json .cluster/scale.json

bench-delivery: $(VENV)/ready ## Measure fetching from a store against s5cmd and aws, 8 min (not part of `make test`)
	$(RUN) -m tests.perf.delivery
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m tests.perf.wrong_source

bench-gateway: $(VENV)/ready ## Measure a gateway against Envoy alone, 6 min, no cluster (not part of `make test`)
	$(RUN) -m tests.perf.gateway

bench-rollout: $(VENV)/ready ## Measure rollouts on the local cluster, 15 min, and their analysis in simulation (not part of `make test`)
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m tests.perf.rollout
	$(RUN) -m tests.perf.in_place
	$(RUN) -m tests.perf.analysis_power

bench-autoscaler: $(VENV)/ready ## Measure the autoscaler on a thousand objects, beside the real HPA and on the local cluster, 32 min (not part of `make test`)
	$(RUN) -m tests.perf.scale.autoscaled --json .cluster/autoscaled.json
	$(RUN) -m tests.perf.scale.real_hpa --json .cluster/real_hpa.json
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m tests.perf.autoscaling_cluster --json .cluster/autoscaling.json

bench-packaging: $(VENV)/ready requirements/torch.txt ## Measure packaging, and Triton beside Flask, about 20 min, no cluster (not part of `make test`)
	$(RUN) -m tests.cluster build-programs
	$(RUN) -m tests.packaging.environment -m tests.perf.packaging

load-gateway: $(VENV)/ready ## 50,000 requests while everything comes and goes, 6 min (not part of `make test`)
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m tests.perf.nothing_lost

load-rollouts: $(VENV)/ready ## 50,000 requests while versions come and go, 7 min (not part of `make test`)
	$(RUN) -m tests.cluster up
	$(RUN) -m tests.cluster build-images
	$(RUN) -m tests.perf.versions_lose_nothing

cluster: $(VENV)/ready ## Start the local cluster (kubeconfig: .cluster/kubeconfig)
	$(RUN) -m tests.cluster up

cluster-down: $(VENV)/ready ## End the local cluster; what was built stays cached
	$(RUN) -m tests.cluster down

generate: $(VENV)/ready ## Write crds/, the chart's CRD and manifests/install.yaml from their sources
	$(RUN) -m tests.generate

lock: $(VENV)/ready ## Resolve the dependencies anew
	$(VENV)/bin/uv pip compile -q --upgrade pyproject.toml --generate-hashes --no-emit-index-url --python-version 3.11 -o requirements/runtime.txt
	$(VENV)/bin/uv pip compile -q --upgrade pyproject.toml --extra dev --generate-hashes --no-emit-index-url --python-version 3.11 -o requirements/dev.txt
	$(VENV)/bin/uv pip compile -q --upgrade pyproject.toml --extra dev --extra torch --extra samples --extra bench --generate-hashes --no-emit-index-url --python-version 3.11 -c requirements/dev.txt -o requirements/torch.txt

clean: ## Remove what was made in this checkout
	rm -rf $(VENV) .cluster .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/ready: requirements/dev.txt pyproject.toml
	@echo "Setting up $(VENV) (about 20 s)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(VENV)/bin/uv pip install --quiet --python $(RUN) --require-hashes -r requirements/dev.txt
	$(VENV)/bin/uv pip install --quiet --python $(RUN) --no-deps --editable .
	@touch $@
