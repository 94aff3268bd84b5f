# Every task of the project; `make` alone prints them. Settings come from the environment or .env (see README).
.DEFAULT_GOAL := help
.PHONY: help setup ingest build status test test-exact test-data test-brokers test-bigquery check-bigquery brokers lint format clean

PYTHON ?= python3
BIN := .venv/bin
DAYS ?=
SEED ?= 1
EVENTS_PER_DAY ?= 20000
VARS ?=
SELECT ?=
FULL_REFRESH ?=
KAFKA_PORT ?= 9092
PUBSUB_PORT ?= 8085

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make ingest      DAYS=7 SEED=1 EVENTS_PER_DAY=20000"
	@echo "  make build       SELECT=fct_events+ FULL_REFRESH=1 VARS='{session_gap_seconds: 1800}'"
	@echo "  make brokers     KAFKA_PORT=9092 PUBSUB_PORT=8085"

setup: .venv/.ready ## Create .venv and install requirements.txt

.venv/.ready: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 2; }
	@echo "setting up .venv (a minute or two, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@$(BIN)/python -m compileall -q -j 0 .venv/lib ingest dbt_project > /dev/null || true
	@touch $@

.venv/.ready-dev: .venv/.ready requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

ingest: .venv/.ready ## Land all that waits; with no broker configured, simulate first (7 days, then one more each run)
	@$(BIN)/python -m ingest simulate --unless-broker $(if $(DAYS),--days $(DAYS)) --seed $(SEED) --events-per-day $(EVENTS_PER_DAY)
	@$(BIN)/python -m ingest land

build: .venv/.ready ## Build and test every model with dbt, and print the marts
	@$(BIN)/python -m dbt_project build $(if $(SELECT),--select $(SELECT)) $(if $(FULL_REFRESH),--full-refresh) $(if $(VARS),--vars '$(VARS)')

status: .venv/.ready ## Print for each stream: landed, waiting, newest, dead letters
	@$(BIN)/python -m ingest status

test: .venv/.ready-dev ## Run the tests that need no broker (some ten minutes on 2 cores)
	@$(BIN)/python -m pytest -m 'not brokers and not exact and not bigquery and not bigquery_emulator'

test-exact: .venv/.ready-dev ## Compare every mart with its definition in plain Python, in 1,000 random worlds (minutes; EXACT_WORLDS, EXACT_SEED)
	@$(BIN)/python -m pytest -m exact

test-data: .venv/.ready ## Run every dbt test over all partitions, not only those touched since the last green build
	@$(BIN)/python -m dbt_project test --vars '{test_all_partitions: true}'

test-brokers: .venv/.ready-dev ## Run the tests against Apache Kafka and Google's Pub/Sub emulator (needs Java 17 and Maven)
	@$(BIN)/python -m pytest -m brokers

test-bigquery: .venv/.ready-dev ## Run the tests of landing in BigQuery against an emulator
	@$(BIN)/python -m pytest -m bigquery_emulator

check-bigquery: .venv/.ready-dev ## Check and run every statement for BigQuery with Google's SQL analyzer and reference implementation (some ten minutes)
	@$(BIN)/python -m pytest -m bigquery

brokers: .venv/.ready ## Run Kafka and the Pub/Sub emulator on loopback without Docker, until Ctrl-C (without Java and Maven: a stand-in for Kafka alone)
	@exec $(BIN)/python -m tests.brokers --kafka-port $(KAFKA_PORT) --pubsub-port $(PUBSUB_PORT)

lint: .venv/.ready-dev ## ruff, mypy (strict) and sqlfluff
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@# sqlfluff passes over a file that dbt cannot compile with a mere warning
	@found=$$($(BIN)/sqlfluff lint --processes 2 dbt_project/models dbt_project/tests 2>&1); status=$$?; \
		echo "$$found" | grep -v 'because it is a macro'; \
		if echo "$$found" | grep -q 'fatal exception'; then exit 1; fi; exit $$status

format: .venv/.ready-dev ## Format Python and SQL
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/sqlfluff fix --processes 2 dbt_project/models dbt_project/tests

clean: ## Remove the warehouse, the spool and dbt's files (not .venv)
	rm -rf warehouse.duckdb warehouse.duckdb.wal warehouse.duckdb.emit spool dbt_project/target dbt_project/logs logs
