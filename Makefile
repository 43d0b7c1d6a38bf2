# evalsink's door. `make` alone prints what there is.
#
# Everything runs from .venv/, which is built from hash-locked requirements and nothing else. Two stamps keep it quick:
# `.run` (what evalsink itself needs: enough for the demo) and `.dev` (with the tools and the test suite).

PYTHON ?= python3
KAFKA_PORT ?= 9092
PROMETHEUS_PORT ?= 9090
GRAFANA_PORT ?= 3000
PYTEST ?=
# Most tests wait for a broker or a process more than they compute: more processes than cores, as long as those keep up.
WORKERS ?= 4
MUTANTS ?=
SEED ?=
UPGRADE ?=
CHAOS ?=
BENCH ?=
# Only `make lock` needs it; pinned so that two people get the same lock.
UV_VERSION := 0.13.9
# Renders and checks the Helm chart; pinned so that two people render the same. Go's checksum database vouches for it.
HELM_VERSION := 3.22.0

VENV := .venv
BIN := $(VENV)/bin
# The locks are complete, so pip need not resolve anything: --no-deps.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps
SBOM_ENV := .cache/sbom
SOURCES := consumer schemas tests benchmarks

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# The tests start Python by the hundred: what is compiled once is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=$(PYTHON) builds the environment (3.11 or newer); KAFKA_PORT=$(KAFKA_PORT) is for 'make kafka'."

## -- the environment --------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.dev ## Build .venv with everything, versions and hashes locked
	@echo "Ready: $(BIN)/evalsink --help"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "evalsink needs Python 3.11 or newer as '$(PYTHON)'; name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
	  { echo "Python's venv module does not work (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/run.lock requirements/build.lock pyproject.toml
	@echo "Installing evalsink into $(VENV) …"
	@$(PIP) --require-hashes -r requirements/build.lock -r requirements/run.lock
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	@echo "Installing the tools and the test suite's packages …"
	@$(PIP) --require-hashes -r requirements/dev.lock
	@touch $@

.PHONY: lock
lock: ## Write requirements/*.lock anew from pyproject.toml; versions stay (UPGRADE=1: the newest)
	@test -x .cache/uv-$(UV_VERSION)/bin/uv || { $(PYTHON) -m venv --clear .cache/uv-$(UV_VERSION) && \
	  .cache/uv-$(UV_VERSION)/bin/python -m pip --disable-pip-version-check install --quiet uv==$(UV_VERSION); }
	@$(UV_COMPILE) requirements/run.lock pyproject.toml
	@$(UV_COMPILE) requirements/build.lock requirements/build.in
	@$(UV_COMPILE) requirements/dev.lock pyproject.toml requirements/build.in --extra dev \
	  --constraint requirements/run.lock --constraint requirements/build.lock
	@for peer in $(filter-out %/lmms-eval.in,$(wildcard benchmarks/peers/*.in)); do \
	  $(UV_COMPILE) $${peer%.in}.lock $$peer || exit 1; done
	@$(UV_COMPILE) benchmarks/peers/lmms-eval.lock --no-deps benchmarks/peers/lmms-eval.in
	@$(UV_COMPILE) requirements/sbom.lock requirements/sbom.in

# No address of an index gets into the locks: a mirror must work as well as the public one.
UV_COMPILE = .cache/uv-$(UV_VERSION)/bin/uv pip compile --quiet --no-config $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-strip-extras --no-annotate --custom-compile-command "make lock" --output-file

## -- releasing it -----------------------------------------------------------------------------------------------------

.PHONY: version
version: ## Print the version
	@sed -nE 's/^version = "(.+)"$$/\1/p' pyproject.toml

.PHONY: dist
dist: $(VENV)/.run ## Build the wheel and the source distribution into dist/
	@$(BIN)/hatchling build --clean

# What the lock holds, not what this machine took of it: the same bytes wherever it is made.
SBOM := dist/evalsink.cdx.json

.PHONY: sbom
sbom: $(SBOM_ENV)/.made ## Write dist/evalsink.cdx.json: what evalsink is made of, by requirements/run.lock (CycloneDX 1.6)
	@mkdir -p $(dir $(SBOM))
	@$(SBOM_ENV)/bin/python -W ignore -m cyclonedx_py requirements requirements/run.lock --pyproject pyproject.toml \
	  --spec-version 1.6 --output-format JSON --output-reproducible --validate --output-file $(SBOM)
	@echo "Wrote $(SBOM)"

# Its packages and evalsink's exclude each other.
$(SBOM_ENV)/.made: requirements/sbom.lock
	@$(PYTHON) -m venv --clear $(SBOM_ENV)
	@$(SBOM_ENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@touch $@

## -- seeing it --------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.run ## Walk the whole way: embedded broker, evaluation, worker, verified run
	@$(BIN)/evalsink demo

.PHONY: kafka
kafka: $(VENV)/.run ## Start a real Kafka on 127.0.0.1:9092 (KAFKA_PORT=); needs Java 17 and Maven
	@$(BIN)/python -m tests.kafka_harness start --port $(KAFKA_PORT)

.PHONY: kafka-stop
kafka-stop: $(VENV)/.run ## Stop it
	@$(BIN)/python -m tests.kafka_harness stop --port $(KAFKA_PORT)

COMPOSE := docker compose --file deploy/compose.yaml
export KAFKA_PORT PROMETHEUS_PORT GRAFANA_PORT

.PHONY: engine
engine:
	@docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || { echo \
	  "This needs a container engine that runs, with Compose: 'docker info' and 'docker compose version' must answer." \
	  "Without one: make kafka, and the commands below it in README.md." >&2; exit 1; }

.PHONY: up
up: engine ## Start Kafka, two workers, Prometheus and Grafana in containers (deploy/compose.yaml)
	@$(COMPOSE) up --build --detach
	@echo "Kafka 127.0.0.1:$(KAFKA_PORT), Prometheus http://127.0.0.1:$(PROMETHEUS_PORT), Grafana http://127.0.0.1:$(GRAFANA_PORT)"
	@echo "Something to look at: $(COMPOSE) run --rm demo"

.PHONY: down
down: engine ## End them; their volumes stay
	@$(COMPOSE) --profile demo down --remove-orphans

## -- keeping it right -------------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.dev ## Run the tests, on real Kafka too where Java and Maven are there (PYTEST= passes options on, -n0: one process)
	@$(BIN)/python -m tests.kafka_harness jars --if-possible
	@$(BIN)/python -m pytest -m "not system" -n $(WORKERS) $(PYTEST)

.PHONY: test-system
test-system: $(VENV)/.dev ## Run the tests that need more than Python and Java (a Prometheus, Buildah and Podman; .ci/run has the list)
	@$(BIN)/python -m tests.kafka_harness jars --if-possible
	@$(BIN)/python -m pytest -m system -n $(WORKERS) $(PYTEST)

.PHONY: mutants
mutants: $(VENV)/.dev ## Remove each protection in turn; a test must fail for each (MUTANTS="--only TEXT")
	@$(BIN)/python -m tests.proof.mutants $(MUTANTS)

.PHONY: chaos
chaos: $(VENV)/.dev ## Do a group of workers on real Kafka every harm, up to 40 minutes (SEED= as a run before printed it)
	@$(BIN)/python -m tests.kafka_harness jars
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(CHAOS)

.PHONY: bench
bench: $(VENV)/.dev ## Measure against peers and the machine, within 40 minutes on 2 idle cores (BENCH="--only closeout")
	@$(BIN)/python -m tests.kafka_harness jars
	@$(BIN)/python -m benchmarks $(BENCH)

.PHONY: bench-full
bench-full: $(VENV)/.dev ## The same with all rows and more rounds: hours
	@$(BIN)/python -m tests.kafka_harness jars
	@$(BIN)/python -m benchmarks --full $(BENCH)

.PHONY: performance-docs
performance-docs: $(VENV)/.dev ## Write docs/PERFORMANCE.md and its plots from benchmarks/results/
	@$(BIN)/python -m benchmarks.report

.PHONY: check
check: lint types imports ## All that is not a test: lint, types, imports

.PHONY: lint
lint: $(VENV)/.dev ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

.PHONY: types
types: $(VENV)/.dev ## mypy --strict
	@$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## import-linter: who may import whom
	@$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.dev ## Mend what ruff can mend
	@$(BIN)/ruff check --fix --exit-zero
	@$(BIN)/ruff format

.PHONY: generated
generated: $(VENV)/.dev ## Write the JSON Schemas, the AsyncAPI document and docs/METRICS.md anew
	@$(BIN)/python -m schemas.export
	@$(BIN)/python -m consumer.telemetry.catalog

.PHONY: helm
helm: .cache/helm-$(HELM_VERSION)/helm ## Build the pinned Helm with Go, for the chart; a helm in PATH is used before it

.cache/helm-$(HELM_VERSION)/helm:
	@command -v go >/dev/null || { echo "make helm needs Go, or put a helm into PATH" >&2; exit 1; }
	@echo "Building Helm $(HELM_VERSION) …"
	@GOBIN=$(CURDIR)/$(@D) go install -trimpath -ldflags "$(HELM_SAYS)" helm.sh/helm/v3/cmd/helm@v$(HELM_VERSION)

# Built without these it takes itself for no version, and every cluster that it does not see for Kubernetes 1.20.
HELM_SAYS = -s -w -X helm.sh/helm/v3/internal/version.version=v$(HELM_VERSION) \
  $(foreach package,chartutil lint/rules,-X helm.sh/helm/v3/pkg/$(package).k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$(package).k8sVersionMinor=37)

.PHONY: manifests
manifests: $(VENV)/.dev ## Bring deploy/chart and deploy/kubernetes into step with what they are made from
	@command -v helm >/dev/null || $(MAKE) --silent helm
	@$(BIN)/python -m tests.deploy.manifests

.PHONY: clean
clean: ## Remove the environment, caches, downloads and the demo's output (a running Kafka is stopped first)
	@if [ -x $(BIN)/python ] && [ -d .kafka ]; then $(BIN)/python -m tests.kafka_harness stop --all; fi
	@# What image tests that were killed left mounted.
	@awk -v cache="$(CURDIR)/.cache/" 'index($$5, cache) == 1 {print $$5}' /proc/self/mountinfo | sort -r | xargs -r umount
	@rm -rf $(VENV) .kafka .cache demo-output dist build *.egg-info \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
