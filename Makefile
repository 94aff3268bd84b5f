# Every task of the project; `make` alone prints them. Settings come from the environment or .env (docs/settings.md).
.DEFAULT_GOAL := help
.PHONY: help setup setup-all live ingest build check-mart query query-check serve dashboard report metric notebooks docs docs-site status recover backup restore compact test test-all test-slow test-exact test-data test-brokers test-bigquery test-browser test-mutations check-bigquery bench bench-quick brokers lint lint-python lint-sql format lock clean

PYTHON ?= python3
BIN := .venv/bin
# Each file of locked/ is complete; with dependencies pip would ask for a hash of each extra, such as mashumaro[msgpack].
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r
DAYS ?=
SEED ?=
EVENTS_PER_DAY ?= 20000
VARS ?=
SELECT ?=
MART ?=
WORLDS ?=
SHRINK_SECONDS ?=
FULL_REFRESH ?=
Q ?=
ARGS ?=
FORMAT ?= table
METRICS ?=
BY ?=
WHERE ?=
PORT ?= 8000
DASHBOARD_PORT ?= 8001
RATE ?=
ROUNDS ?= 3
FOLDER ?=
KAFKA_PORT ?= 9092
PUBSUB_PORT ?= 8085
REGISTRY_PORT ?= 8081
CONFIRM ?=
UPGRADE ?=

# Recipes take these from the environment, where quotes, $ and ; mean nothing to a shell.
$(foreach name,DAYS SEED EVENTS_PER_DAY VARS SELECT MART WORLDS SHRINK_SECONDS FULL_REFRESH Q ARGS FORMAT METRICS BY WHERE PORT \
	DASHBOARD_PORT RATE ROUNDS FOLDER KAFKA_PORT PUBSUB_PORT REGISTRY_PORT CONFIRM UPGRADE,$(eval override export $(name) := $$(value $(name))))

# A misspelled variable would be ignored. Names with _ may be settings (docs/settings.md) or those of other tools.
$(foreach name,$(filter-out PYTHON BIN STREAMS WAREHOUSE TOPICS SUBSCRIPTIONS UMASK TMPDIR CI,$(.VARIABLES)),\
	$(if $(findstring _,$(name)),,$(if $(filter command,$(origin $(name))),\
	$(error there is no variable $(name): `make` lists the commands and their variables))))

# Runs Python with the words of ARGS: as a shell would split them, or at spaces where an apostrophe stands alone.
define WITH_ARGS
import os, shlex, sys
try:
    words = shlex.split(os.environ["ARGS"])
except ValueError:
    words = os.environ["ARGS"].split()
os.execv(sys.executable, [sys.executable, *sys.argv[1:], *words])
endef
export WITH_ARGS

# Each file has all that it needs: those of fewer packages take their pins from requirements-dev.txt.
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-emit-index-url
PIN = $(COMPILE) $(2) --output-file $(1).txt $${UPGRADE:+--upgrade-package "$$UPGRADE"} \
	&& $(COMPILE) --generate-hashes $(1).txt --output-file locked/$(1).txt

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make ingest      DAYS=7 SEED=1 EVENTS_PER_DAY=20000"
	@echo "  make build       SELECT=fct_events+ FULL_REFRESH=1 VARS='{session_gap_seconds: 1800}'"
	@echo "  make metric      METRICS=events,revenue BY=metric_time__day WHERE=\"{{ Dimension('event__brand') }} = 'acme'\""
	@echo "  make bench       ROUNDS=3 FOLDER=/somewhere/with/60/GB"
	@echo "  make brokers     KAFKA_PORT=9092 PUBSUB_PORT=8085 REGISTRY_PORT=8081"

setup: .venv/.ready ## Create .venv with what the embedded default needs: spool, DuckDB, dbt, endpoints

setup-all: .venv/.ready-all ## Add the clients of Kafka, Pub/Sub and BigQuery

.venv/.ready: locked/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo "error: Python 3.11 or 3.12 is needed; set PYTHON=..." >&2; exit 2; }
	@echo "setting up .venv (a minute or two, once)"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) locked/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 .venv/lib common engines ingest dbt_project publishing contracts upkeep serve live > /dev/null || true
	@touch $@

.venv/.ready-all: .venv/.ready locked/requirements-all.txt
	@$(INSTALL) locked/requirements-all.txt
	@touch $@

.venv/.ready-analysts: .venv/.ready locked/requirements-analysts.txt
	@$(INSTALL) locked/requirements-analysts.txt
	@touch $@

.venv/.ready-bench: .venv/.ready locked/requirements-bench.txt
	@$(INSTALL) locked/requirements-bench.txt
	@touch $@

.venv/.ready-dev: .venv/.ready locked/requirements-dev.txt
	@$(INSTALL) locked/requirements-dev.txt
	@touch $@

live: .venv/.ready ## Land, build, publish and serve within seconds, until Ctrl-C; without a broker, a simulated shop has RATE=50 events per second: PORT=8000 DASHBOARD_PORT=8001
	@exec $(BIN)/python -c "$$WITH_ARGS" -m live --port "$$PORT" --dashboard-port "$$DASHBOARD_PORT" $${RATE:+--rate "$$RATE"} $${VARS:+--vars "$$VARS"}

ingest: .venv/.ready ## Land every waiting message; without a broker, simulate first (7 days, then one more per run)
	@$(BIN)/python -m ingest simulate --unless-broker $${DAYS:+--days "$$DAYS"} --seed "$${SEED:-1}" --events-per-day "$$EVENTS_PER_DAY"
	@$(BIN)/python -m ingest land

build: .venv/.ready ## Build and test every model with dbt, and print the marts
	@$(BIN)/python -m dbt_project build $${SELECT:+--select "$$SELECT"} $${FULL_REFRESH:+--full-refresh} $${VARS:+--vars "$$VARS"}

check-mart: .venv/.ready ## Check that a mart is exact in random worlds: MART=agg_events_daily WORLDS=300 SEED=7 SHRINK_SECONDS=60; without MART, all (about a minute)
	@$(BIN)/python -m dbt_project.check_mart $${WORLDS:+--worlds "$$WORLDS"} $${SEED:+--seed "$$SEED"} $${SHRINK_SECONDS:+--shrink-seconds "$$SHRINK_SECONDS"} $${MART:+"$$MART"}

query: .venv/.ready ## Answer a query of analyses/: Q=top_products ARGS="brand=samsung limit=5" FORMAT=csv; without Q, list all
	@$(BIN)/python -c "$$WITH_ARGS" -m serve query --format "$$FORMAT" $${Q:+"$$Q"}

query-check: .venv/.ready ## Check the queries of analyses/ in seconds, without a build: Q=top_products; without Q, all
	@$(BIN)/python -m serve check $${Q:+"$$Q"}

metric: .venv/.ready-analysts ## Print metrics: METRICS=events,revenue BY=metric_time__day WHERE="..."; without METRICS, list all
	@$(BIN)/python -m serve metric "$$METRICS" --by "$$BY" --where "$$WHERE" --format "$$FORMAT"

notebooks: .venv/.ready-analysts ## Open the notebooks in a browser (marimo, on loopback)
	@$(BIN)/marimo edit --skip-update-check notebooks

docs: .venv/.ready ## Write dbt's documentation, one static page, docs/data_dictionary.md and docs/settings.md
	@$(BIN)/python -m dbt_project docs generate --static
	@$(BIN)/python -m dbt_project.dictionary
	@$(BIN)/python -m common.settings_page

docs-site: .cache/docs/.ready ## Build the documentation as a searchable site: open site/index.html
	@# in a copy: Zensical keeps its own files in .cache of the folder that it runs in, and may clear it
	@rm -rf .cache/docs-site site && mkdir -p .cache/docs-site && cp -r docs zensical.toml .cache/docs-site
	@cd .cache/docs-site && ../docs/bin/zensical build --strict
	@mv .cache/docs-site/site site

.cache/docs/.ready: locked/requirements-docs.txt
	@echo "setting up .cache/docs (once)"
	@$(PYTHON) -m venv .cache/docs
	@.cache/docs/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locked/requirements-docs.txt
	@touch $@

serve: .venv/.ready ## Answer queries over HTTP on loopback, until Ctrl-C: PORT=8000; /docs describes them
	@exec $(BIN)/python -m serve --port "$$PORT"

dashboard: .venv/.ready ## Serve the dashboard at http://127.0.0.1:8001/, until Ctrl-C: DASHBOARD_PORT=8001
	@exec $(BIN)/python -m serve dashboard --port "$$DASHBOARD_PORT"

report: .venv/.ready ## Write the dashboard to report.html, one self-contained file: ARGS="period=30d brand=acme"
	@$(BIN)/python -c "$$WITH_ARGS" -m serve report

status: .venv/.ready ## Print landed, waiting and rejected messages of each stream
	@$(BIN)/python -m ingest status

recover: .venv/.ready ## Judge dead letters again by the present contract, and land those that pass: ARGS="--stream clicks --dry-run"
	@$(BIN)/python -c "$$WITH_ARGS" -m ingest recover

backup: .venv/.ready ## Write a consistent backup to a new folder, while landing and builds go on: FOLDER=/backups/monday
	@$(BIN)/python -m upkeep backup $${FOLDER:+"$$FOLDER"}

restore: .venv/.ready ## Fill an empty warehouse from a backup; with WAREHOUSE=bigquery, move it there: FOLDER=/backups/monday
	@$(BIN)/python -m upkeep restore $${FOLDER:+"$$FOLDER"}

compact: .venv/.ready ## Rewrite the DuckDB file without the space that it does not use
	@$(BIN)/python -m upkeep compact

test: .venv/.ready-dev ## Run the tests that need nothing but Python (six to ten minutes on 2 cores)
	@$(BIN)/python -m pytest -n auto

test-all: ## Run all tests but the mutations: also random worlds, brokers, BigQuery and the browser (about 80 minutes)
	@$(MAKE) --keep-going test test-slow test-exact test-brokers test-bigquery check-bigquery test-browser

test-slow: .venv/.ready-dev ## Run the tests that build many times, or wait (15 minutes on 2 cores; LIVE_KILLS=50)
	@$(BIN)/python -m pytest -n auto -m slow

test-exact: .venv/.ready-dev ## Compare every mart with its definition in plain Python, in 1,000 random worlds and for 100 random contracts (half an hour; EXACT_WORLDS, EXACT_CONTRACT_SETS, EXACT_SEED)
	@$(BIN)/python -m pytest -n auto -m exact

test-data: .venv/.ready ## Run every dbt test over all partitions, not only those changed since the last successful build
	@$(BIN)/python -m dbt_project test --vars '{test_all_partitions: true}'

test-brokers: .venv/.ready-dev ## Run the tests against Apache Kafka, Google's Pub/Sub emulator and Apicurio Registry (needs Java 17 and Maven)
	@$(BIN)/python -m pytest -m brokers

test-bigquery: .venv/.ready-dev ## Run the tests of landing in BigQuery against an emulator, and of an older DuckDB that reads the warehouse (LIVE_PUBLISHES=200)
	@$(BIN)/python -m pytest -m 'bigquery_emulator or older_duckdb'

test-browser: .venv/.ready-dev ## Run the tests of the dashboard in Chromium (installs one if there is none)
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || $(BIN)/playwright install --only-shell chromium \
		|| { apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends chromium; }
	@$(BIN)/python -m pytest -m browser

test-mutations: .venv/.ready-dev ## Break the product in more than a hundred ways, and report which tests notice (an hour or two)
	@$(BIN)/python -m tests.mutations

check-bigquery: .venv/.ready-dev ## Check and run every statement for BigQuery with Google's SQL analyzer and reference implementation (five minutes)
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'bigquery and not exact'

bench: .venv/.ready-bench ## Measure landing, builds, increments and start-up against floors and peers; writes benchmarks/RESULTS.md (one to two hours; Java 17, Maven, 60 GB)
	@$(BIN)/python -m benchmarks --rounds "$$ROUNDS" $${FOLDER:+--folder "$$FOLDER"}

bench-quick: .venv/.ready-bench ## Print the same for less input (about six minutes, once the peers are installed)
	@$(BIN)/python -m benchmarks --quick

brokers: .venv/.ready-all ## Run Kafka, the Pub/Sub emulator and a schema registry on loopback without Docker, until Ctrl-C (without Java and Maven: a stand-in for Kafka alone)
	@exec $(BIN)/python -m tools.brokers --kafka-port "$$KAFKA_PORT" --pubsub-port "$$PUBSUB_PORT" --registry-port "$$REGISTRY_PORT"

lint: lint-python lint-sql ## Run ruff, mypy (strict) and sqlfluff

lint-python: .venv/.ready-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

lint-sql: .venv/.ready-dev
	@# sqlfluff passes over a file that dbt cannot compile with a mere warning
	@found=$$($(BIN)/sqlfluff lint --processes 2 analyses dbt_project/models dbt_project/tests 2>&1); status=$$?; \
		echo "$$found" | grep -v 'because it is a macro'; \
		if echo "$$found" | grep -q 'fatal exception'; then exit 1; fi; exit $$status

format: .venv/.ready-dev ## Format Python and SQL
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/sqlfluff fix --processes 2 analyses dbt_project/models dbt_project/tests

lock: .venv/.ready-dev ## Pin the packages of pyproject.toml in requirements*.txt, and with hashes in locked/: UPGRADE=duckdb renews one pin
	@$(call PIN,requirements-dev,pyproject.toml --all-extras --group build --group bench --group dev)
	@$(call PIN,requirements,pyproject.toml --group build -c requirements-dev.txt)
	@$(call PIN,requirements-all,pyproject.toml --extra google --extra kafka --group build -c requirements-dev.txt)
	@$(call PIN,requirements-analysts,pyproject.toml --extra analysts --group build -c requirements-dev.txt)
	@$(call PIN,requirements-bench,pyproject.toml --all-extras --group build --group bench -c requirements-dev.txt)
	@$(call PIN,requirements-docs,--group docs)

clean: .venv/.ready ## List the warehouse, the spool and dbt's files, ask, and remove them (CONFIRM=1: without asking)
	@$(BIN)/python -m ingest clean $${CONFIRM:+--yes}
