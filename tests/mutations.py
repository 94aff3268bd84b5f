"""Mutation tests: breaks the product in many small ways and reports which test tier notices each one.

`make test-mutations` copies the repository once per mutation, replaces one piece of text, and runs the tests that are
expected to fail. The fast tier (`make test`) runs first, then the slow tier. What neither tier notices needs a test.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
SLOW = "slow or brokers or exact or bigquery or bigquery_emulator or browser"
TIERS = {"fast": [], "slow": ["-m", SLOW]}
"""Tier to options of pytest: without -m it runs the fast tier (pyproject.toml)."""
TESTS_FAILED = 1
"""Pytest's exit code when tests ran and some failed. Any other code than this, 0 and 5 is an error of the mutation."""
NO_TESTS = 5
TIMEOUT_SECONDS = 1800
"""Tests that hang have noticed the mutation."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One piece of a file, and the text that breaks it."""

    name: str
    file: str
    right: str
    wrong: str
    tests: str
    """Where the failure is expected: paths for pytest, separated by spaces."""


PAGE_VIEWS = "dbt_project/models/analytics/fct_page_views.sql"
FIRST_CLICKS = "dbt_project/models/intermediate/int_checkout_first_clicks.sql"
FACTS = "dbt_project/models/analytics/fct_events.sql"
WATERMARKS = "dbt_project/macros/watermarks.sql"
WORLDS = "tests/dbt_project/exact/test_random_worlds.py"
CONTRACTS = "tests/dbt_project/exact/test_random_contracts.py"
RETENTION = "tests/dbt_project/exact/test_retention.py"
BUILD = "tests/dbt_project/test_build.py"
ACCOUNTING = "tests/dbt_project/test_accounting.py"
ANSWERS = "tests/analyses/test_answers.py"
CHECK_MART = "tests/dbt_project/test_check_mart.py"

MUTATIONS = (
    # --- retention
    Mutation(
        "the accounting counts landing dates again of which messages are removed",
        "dbt_project/models/analytics/landing_reconciliation.sql",
        "    select * from {{ ref('int_raw_messages') }}\n    where {{ is_in_build() }} and {{ landed_whole() }}",
        "    select * from {{ ref('int_raw_messages') }}\n    where {{ is_in_build() }}",
        RETENTION,
    ),
    Mutation(
        "retention removes the date of the newest message",
        "dbt_project/macros/retention.sql",
        "[first_kept, built[stream]] | min",
        "first_kept",
        RETENTION,
    ),
    Mutation(
        "a rebuild loses removed messages without asking",
        "dbt_project/macros/retention.sql",
        "{% if not var('lose_removed_messages') %}",
        "{% if false %}",
        RETENTION,
    ),
    # --- live
    Mutation(
        "live never publishes the messages of a failed build",
        "dbt_project/resident.py",
        "bound != self._built.get(stream)",
        "bound != self._upper_bounds.get(stream)",
        "tests/dbt_project/test_resident.py",
    ),
    Mutation(
        "live publishes in the pause after a failed build",
        "live/builds.py",
        "        self.failure = reason\n",
        "        self.failure = None\n",
        "tests/live/test_builds.py",
    ),
    Mutation(
        "live publishes although a test fails",
        "live/builds.py",
        "            self._failed_tests = self._tests.failures",
        "            self._failed_tests = []",
        "tests/live/test_live.py",
    ),
    Mutation(
        "a full disk ends the feed of live",
        "ingest/producers/spool.py",
        'raise write_error(path, error, "SPOOL_PATH") from error',
        "raise",
        "tests/live/test_full_disk.py",
    ),
    Mutation(
        "a file being read is brought up to date",
        "engines/duckdb/open_files.py",
        "if not _closed.wait_for(lambda: _id(path) not in _readers, timeout):",
        "if False:",
        "tests/publishing tests/live/test_readers.py",
    ),
    # --- backups
    Mutation(
        "a backup reads its tables at different moments",
        "engines/duckdb/backup.py",
        '        cursor.execute("begin")\n',
        "",
        "tests/upkeep/test_backup.py",
    ),
    Mutation(
        "a backup rounds large integers",
        "engines/duckdb/backup.py",
        'KEPT_AS_TEXT = ("hugeint", ',
        "KEPT_AS_TEXT = (",
        "tests/upkeep/test_backup.py",
    ),
    Mutation(
        "restore does not compare checksums",
        "upkeep/restore.py",
        "    verify(folder, manifest, on_table)\n",
        "",
        "tests/upkeep/test_backup.py",
    ),
    Mutation(
        "restore replaces a warehouse with rows",
        "engines/duckdb/backup.py",
        "if holding := _with_rows(connection):",
        "if holding := None:",
        "tests/upkeep/test_backup.py",
    ),
    Mutation(
        "after a restore, queries answer from the lost warehouse",
        "upkeep/restore.py",
        "link.unlink(missing_ok=True)",
        "link.exists()",
        "tests/upkeep/test_backup.py",
    ),
    Mutation(
        "a move to BigQuery forgets the positions",
        "engines/bigquery/restore.py",
        "if positions.num_rows:",
        "if False:",
        "tests/engines/test_bigquery_restore.py",
    ),
    Mutation(
        "live writes a backup for which nobody waits",
        "upkeep/backup.py",
        "if stop.is_set() or not request.exists() or not _is_locked(folder):",
        "if False:",
        "tests/upkeep/test_live.py",
    ),
    Mutation(
        "all users can read new files",
        "common/settings.py",
        "    os.umask(int(settings.umask, 8))",
        "    pass",
        "tests/upkeep/test_file_modes.py",
    ),
    # --- check-mart
    Mutation(
        "check-mart draws no texts that the SQL names",
        "dbt_project/exactness/values.py",
        "if self.literals.texts and self.one_in(3):",
        "if False:",
        CHECK_MART,
    ),
    Mutation(
        "check-mart passes a mart that never had a row",
        "dbt_project/check_mart.py",
        "if name not in checker.with_rows]",
        "if False]",
        CHECK_MART,
    ),
    Mutation(
        "check-mart does not see a clock",
        "dbt_project/exactness/checker.py",
        "if found := CHANGING.search(code_of(sql)):",
        'if found := CHANGING.search(""):',
        CHECK_MART,
    ),
    Mutation(
        "snapshots keep columns that a contract drops",
        "dbt_project/macros/entities.sql",
        "{% do alter_relation_add_remove_columns(snapshot, none, gone) %}",
        "",
        "tests/dbt_project/test_snapshots.py",
    ),
    Mutation(
        "check-mart takes every mart for exact",
        "dbt_project/exactness/checker.py",
        "return (only_here, only_there) if only_here or only_there else None",
        "return None",
        CHECK_MART,
    ),
    Mutation(
        "check-mart compares with a copy of the incremental rows",
        "dbt_project/exactness/checker.py",
        "        self._build(path)\n        return path\n\n    def _refreshed_alone",
        "        shutil.copyfile(built, path)\n        return path\n\n    def _refreshed_alone",
        CHECK_MART,
    ),
    Mutation(
        "check-mart lands all messages before the first run",
        "dbt_project/exactness/worlds.py",
        "            run=self.rng.randrange(self.runs),\n            commit",
        "            run=0,\n            commit",
        "tests/dbt_project/test_worlds.py",
    ),
    Mutation(
        "check-mart does not leave out messages that a failure does not need",
        "dbt_project/exactness/shrink.py",
        "for units in (list(by_world.values()), [[message] for message in messages]):",
        "for units in (list(by_world.values()),):",
        CHECK_MART,
    ),
    # --- rules of the models
    Mutation(
        "a gap of exactly the limit splits a session",
        PAGE_VIEWS,
        "event_at > key_previous_at + interval",
        "event_at >= key_previous_at + interval",
        WORLDS,
    ),
    Mutation(
        "a late page view on another day leaves its neighbour sessions alone",
        PAGE_VIEWS,
        "before=gap, after=gap",
        "before=0, after=0",
        WORLDS,
    ),
    Mutation(
        "engaged time replaces the time until the next page",
        PAGE_VIEWS,
        "when next_event_at is not null then {{ seconds_between",
        "when next_event_at is not null and engaged_seconds is null then {{ seconds_between",
        WORLDS,
    ),
    Mutation(
        "a click exactly at the start of the attribution window does not count",
        FIRST_CLICKS,
        "range between {{ window_seconds * 1000000 }} preceding",
        "range between {{ window_seconds * 1000000 - 1 }} preceding",
        WORLDS,
    ),
    Mutation("a late click re-attributes its own day only", FIRST_CLICKS, "after=window_seconds, ", "", WORLDS),
    Mutation(
        "the last click before a checkout gets the credit",
        FIRST_CLICKS,
        "min(click_number) over",
        "max(click_number) over",
        WORLDS,
    ),
    Mutation(
        "copies of events from earlier builds are inserted again",
        FACTS,
        "known.event_key = first_copies.event_key",
        "known.event_key = 'none'",
        f"{WORLDS} {BUILD}",
    ),
    Mutation(
        "the last copy of an event within a build wins",
        FACTS,
        "order by {{ log_order() }}) = 1",
        "order by landed_at desc, message_id desc) = 1",
        WORLDS,
    ),
    Mutation(
        "a session that starts on another day is not counted again",
        "dbt_project/models/analytics/agg_user_metrics_daily.sql",
        "(new_reporting_dates(ref('int_accepted_events')) + session_dates)",
        "new_reporting_dates(ref('int_accepted_events'))",
        WORLDS,
    ),
    Mutation(
        "daily users are counted once per event",
        "dbt_project/macros/measures.sql",
        "'users': 'count(distinct user_id)'",
        "'users': 'count(user_id)'",
        WORLDS,
    ),
    Mutation(
        "views of a post are counted once per event",
        "dbt_project/models/analytics/agg_post_metrics_daily.sql",
        "count(distinct case when event_type = 'post_view' then user_id end) as views",
        "count(case when event_type = 'post_view' then user_id end) as views",
        WORLDS,
    ),
    Mutation(
        "the 95th percentile is the 90th",
        "dbt_project/models/analytics/agg_arrival_lateness_daily.sql",
        "0.95 * events",
        "0.9 * events",
        f"{WORLDS} {ANSWERS}",
    ),
    Mutation(
        "an event may be published two days before it happens",
        "dbt_project/macros/staging.sql",
        "published_at + interval 1 day",
        "published_at + interval 2 day",
        WORLDS,
    ),
    Mutation(
        "the text null in a CSV is a value",
        "dbt_project/macros/contract_fields.sql",
        "{%- set nulls = contract.nulls + field.nulls -%}",
        "{%- set nulls = field.nulls -%}",
        WORLDS,
    ),
    Mutation(
        "of a field's paths the last that has a value counts",
        "dbt_project/macros/contract_fields.sql",
        "'coalesce(' ~ found | join(', ') ~ ')'",
        "'coalesce(' ~ found | reverse | join(', ') ~ ')'",
        CONTRACTS,
    ),
    Mutation(
        "a list is read one place too early",
        "dbt_project/macros/engine/parsed_json.sql",
        "(step[1:-1] | int + 1)",
        "(step[1:-1] | int)",
        CONTRACTS,
    ),
    Mutation(
        "1 is not true",
        "dbt_project/macros/engine/values.sql",
        "when '1' then true ",
        "",
        CONTRACTS,
    ),
    Mutation(
        "a row that Debezium says is deleted is read as it is now",
        "dbt_project/macros/contract_fields.sql",
        "change_value('before.' ~ path)",
        "change_value('after.' ~ path)",
        CONTRACTS,
    ),
    Mutation(
        "the hash of a personal value is not that of RFC 2104",
        "dbt_project/macros/engine/values.sql",
        "sha256((select outer_pad from",
        "sha256((select inner_pad from",
        CONTRACTS,
    ),
    Mutation(
        "test events are accepted",
        "dbt_project/models/staging/stg_page_views.sql",
        "when is_test_event then 'test_event'",
        "when is_test_event and is_malformed then 'test_event'",
        WORLDS,
    ),
    Mutation(
        "engagement_time_msec is read as hundredths of a second",
        "dbt_project/models/staging/stg_page_views.sql",
        "cast(0.001 as numeric(4, 3))",
        "cast(0.01 as numeric(4, 3))",
        WORLDS,
    ),
    Mutation(
        "hashes join texts without their lengths",
        "dbt_project/macros/engine/values.sql",
        'coalesce(cast(length(" ~ text ~ ") as " ~ dbt.type_string() ~ ") || \':\' || " ~ text ~ ", \'null\')',
        "coalesce(\" ~ text ~ \", 'null')",
        WORLDS,
    ),
    Mutation(
        "hours of a half-hour time zone start at full UTC hours",
        "dbt_project/macros/engine/times.sql",
        "{{ time }} - ({{ to_local(time) }} - date_trunc('hour', {{ to_local(time) }}))",
        "date_trunc('hour', {{ time }})",
        f"{BUILD} {WORLDS}",
    ),
    Mutation(
        "a local day is read from one UTC day",
        "dbt_project/macros/affected_dates.sql",
        "for days in (-1, 0, 1)",
        "for days in (0,)",
        f"{BUILD} {WORLDS}",
    ),
    Mutation(
        "of what happened to an entity at one instant the earlier in the log comes last",
        "dbt_project/macros/entities.sql",
        "order by effective_at, tombstones, updated_at, log_number",
        "order by effective_at, tombstones, updated_at, log_number desc",
        WORLDS,
    ),
    Mutation(
        "the first version of an entity ignores created_at",
        "dbt_project/macros/entities.sql",
        "when version_number = 1 and created_at < effective_at then created_at else effective_at end",
        "when version_number = 1 and created_at < effective_at then effective_at else effective_at end",
        WORLDS,
    ),
    Mutation(
        "a session of two pages is a bounce",
        "dbt_project/models/analytics/fct_sessions.sql",
        "session_page_views = 1 as is_bounce",
        "session_page_views <= 2 as is_bounce",
        WORLDS,
    ),
    Mutation(
        "NaN in JSON is accepted",
        "dbt_project/macros/engine/parsed_json.sql",
        "when regexp_matches({{ text }}, ':\\s*{{ value }}')",
        "when regexp_matches({{ text }}, 'no such text')",
        WORLDS,
    ),
    Mutation(
        "sessions near a late page view are left as they were",
        PAGE_VIEWS,
        "new_before >= event_at - interval {{ gap }} second",
        "new_before > event_at - interval {{ gap }} second",
        WORLDS,
    ),
    Mutation(
        "a late version is put in order among new ones only",
        "dbt_project/macros/entities.sql",
        "where {{ id }} in (select new_versions.{{ id }} from new_versions)",
        "where false",
        WORLDS,
    ),
    Mutation(
        "a store event changes its own day of its session only",
        "dbt_project/models/analytics/fct_session_event_sequence.sql",
        "from {{ this }}\n    where source_session_id in",
        "from {{ this }}\n    where false and source_session_id in",
        WORLDS,
    ),
    Mutation(
        "a local day is a UTC day",
        "dbt_project/macros/engine/times.sql",
        "cast({{ to_local(time) }} as date)",
        "cast({{ time }} as date)",
        f"{BUILD} {WORLDS}",
    ),
    Mutation(
        "messages of one commit are in the order of their ids as text",
        "dbt_project/macros/engine/values.sql",
        "landed_at, {{ log_number('/([0-9]+)/[0-9]+$') }}, {{ log_number('/([0-9]+)$') }}, published_at, message_id",
        "landed_at, message_id",
        WORLDS,
    ),
    Mutation(
        "a tombstone loses to a version by a clock that was ahead",
        "dbt_project/macros/entities.sql",
        "when is_tombstone then newest_updated_at\n",
        "when is_tombstone then updated_at\n",
        WORLDS,
    ),
    Mutation(
        "after a tombstone by a clock that was ahead the later in the log counts, not the newer",
        "dbt_project/macros/entities.sql",
        "order by effective_at, tombstones, updated_at, log_number",
        "order by effective_at, log_number",
        f"{BUILD} {WORLDS}",
    ),
    Mutation(
        "a newer version after a tombstone loses to it if a clock was ahead before",
        "dbt_project/macros/entities.sql",
        "when updated_at >= newest_tombstone_at then greatest(",
        "when false then greatest(",
        f"{BUILD} {WORLDS}",
    ),
    Mutation(
        "versions of one time with other contents are one version",
        "dbt_project/macros/staging.sql",
        "time_text_of('created_at'), time_text_of('deleted_at')\n    ] + contents",
        "time_text_of('created_at'), time_text_of('deleted_at')\n    ]",
        WORLDS,
    ),
    Mutation(
        "'undefined' is an id",
        "dbt_project/macros/staging.sql",
        "case when not {{ is_no_value(text) }} then {{ text }} end",
        "nullif({{ text }}, '')",
        WORLDS,
    ),
    Mutation(
        "a tombstone with a JSON key deletes an entity of that odd name",
        "dbt_project/macros/staging.sql",
        "when starts_with({{ text }}, '{') or starts_with({{ text }}, '\"') then",
        "when false then",
        WORLDS,
    ),
    Mutation(
        "the lines of an order are one checkout",
        "dbt_project/macros/staged_events.sql",
        "event_key(stream, lines)",
        "event_key(stream)",
        WORLDS,
    ),
    Mutation(
        "page views of one batch and time are one page view",
        "dbt_project/models/staging/stg_page_views.sql",
        "time_text_of('event_at'), 'page_title', 'user_pseudo_id', 'url',",
        "time_text_of('event_at'), 'page_title', 'user_pseudo_id',",
        WORLDS,
    ),
    Mutation(
        "a web event without an id is known by its message",
        "dbt_project/macros/staged_events.sql",
        "coalesce(source_event_id, {{ surrogate_key",
        "coalesce(source_event_id, message_id, {{ surrogate_key",
        f"{WORLDS} {BUILD}",
    ),
    Mutation(
        "texts of megabytes are accepted",
        "dbt_project/macros/staging.sql",
        "    65536\n",
        "    99999999\n",
        WORLDS,
    ),
    # --- watermarks, state and accounting
    Mutation(
        "what is new goes by event time",
        FACTS,
        "where {{ is_new() }}",
        "where {{ is_in_build() }} {% if is_incremental() %} "
        "and event_at > (select max(event_at) from {{ this }}) {% endif %}",
        WORLDS,
    ),
    Mutation(
        "a run that reads no rows moves what builds remember",
        "dbt_project/macros/build_state.sql",
        "        {% do check_all_rows_are_read() %}\n",
        "",
        ACCOUNTING,
    ),
    Mutation(
        "a rebuild of one model leaves its children as they were",
        "dbt_project/macros/rebuilds.sql",
        "{% elif parents %}",
        "{% elif false %}",
        ACCOUNTING,
    ),
    Mutation(
        "a full refresh takes what is left in raw for all there was",
        "dbt_project/macros/rebuilds.sql",
        "{% if counts.found < counts.accounted %}",
        "{% if false %}",
        ACCOUNTING,
    ),
    Mutation(
        "a raw table that no model reads is passed over",
        "dbt_project/tests/every_message_is_accounted_for.sql",
        "{%- for table in raw_tables_without_a_model() %}",
        "{%- for table in [] %}",
        ACCOUNTING,
    ),
    Mutation(
        "a copy with other contents counts as a true copy",
        "dbt_project/models/analytics/landing_reconciliation.sql",
        "is distinct from facts",
        "is distinct from copies",
        ACCOUNTING,
    ),
    Mutation(
        "the project's merge replaces rows of other people's models",
        "dbt_project/macros/merge.sql",
        "    {{ return(model.package_name == project_name) }}\n",
        "    {{ return(true) }}\n",
        "tests/dbt_project/test_plain_dbt.py",
    ),
    Mutation(
        "a target of one's own writes to the shared marts",
        "dbt_project/macros/generate_schema_name.sql",
        "        {{ target.schema }}_{{ name }}",
        "        {{ name }}",
        "tests/dbt_project/test_plain_dbt.py",
    ),
    Mutation(
        "a model reads what its slowest parent has not read",
        WATERMARKS,
        "else upper_bounds[stream] | min",
        "else upper_bounds[stream] | max",
        WORLDS,
    ),
    Mutation(
        "all streams share one watermark",
        WATERMARKS,
        "'watermark': watermarks.get(model.name, {}).get(stream),",
        "'watermark': watermarks.get(model.name, {}).values() | max,",
        WORLDS,
    ),
    Mutation(
        "what landed exactly at the upper bound is left out",
        WATERMARKS,
        'landed_at <= timestamp \'" ~ bound.upper_bound ~ "\')") -%}\n        {%- do watermarks',
        'landed_at < timestamp \'" ~ bound.upper_bound ~ "\')") -%}\n        {%- do watermarks',
        f"{BUILD} {WORLDS}",
    ),
    Mutation(
        "other settings than those of the last build are let through",
        "dbt_project/macros/build_state.sql",
        "{% do check_settings() %}",
        "",
        BUILD,
    ),
    Mutation(
        "a build that left tests out counts as one in which all passed",
        "dbt_project/macros/build_state.sql",
        "{% do not_passed.append(id) %}",
        "",
        BUILD,
    ),
    Mutation(
        "tests read no partition",
        "dbt_project/macros/changed_rows.sql",
        "{{ return(none if none in touched else touched | map('string') | sort) }}",
        "{{ return([]) }}",
        BUILD,
    ),
    Mutation(
        "landed messages are counted in staging",
        "dbt_project/models/analytics/landing_reconciliation.sql",
        "from raw_messages",
        "from staged_messages",
        f"{BUILD} {WORLDS}",
    ),
    Mutation(
        "dead letters lose their payload",
        "dbt_project/models/analytics/dead_letters.sql",
        "rejected_payload as payload",
        "cast(null as blob) as payload",
        WORLDS,
    ),
    # --- recovery
    Mutation(
        "a late recovery does not reach its dead letter",
        "dbt_project/models/analytics/dead_letters.sql",
        "landed_in('landed_at', recovered_dates)",
        "landed_in('landed_at', [])",
        WORLDS,
    ),
    Mutation(
        "the day of a recovered message is not counted again",
        "dbt_project/models/analytics/landing_reconciliation.sql",
        "    select distinct cast(original_landed_at as date), cast(original_landed_at as date)",
        "    select distinct cast(landed_at as date), cast(landed_at as date)",
        WORLDS,
    ),
    Mutation(
        "the last of several recoveries counts",
        "dbt_project/models/analytics/dead_letters.sql",
        "and recovered_at is null and not",
        "and not",
        WORLDS,
    ),
    Mutation(
        "a recovered message stays an open dead letter in queries",
        "analyses/dead_letters_by_reason.sql",
        "where recovered_at is null\n    and landed_at",
        "where landed_at",
        ANSWERS,
    ),
    Mutation(
        "a message is recovered twice",
        "engines/duckdb/recovery.py",
        "where recovered.source = '{RECOVER}' and recovered.message_id = again.message_id",
        "where recovered.source = 'nothing' and recovered.message_id = again.message_id",
        "tests/engines/test_recovery.py",
    ),
    Mutation(
        "what was recovered is judged again",
        "engines/duckdb/recovery.py",
        "    and not {IS_RECOVERED}\n",
        "",
        "tests/contracts/test_recover.py tests/engines/test_recovery.py",
    ),
    Mutation(
        "a patch may make messages fail",
        "contracts/recover.py",
        "    if messages:\n",
        "    if not messages:\n",
        "tests/contracts/test_recover.py",
    ),
    Mutation(
        "a patch may read more than the payload",
        "contracts/patch.py",
        "if len(expressions) != 1 or query !=",
        "if len(expressions) != 1 and query !=",
        "tests/contracts/test_patch.py",
    ),
    # --- commits and positions
    Mutation(
        "what another loader landed is landed again",
        "engines/duckdb/sink.py",
        "if first is not None and first < next_offset:",
        "if False:",
        "tests/engines/test_duckdb.py tests/ingest/test_landing.py",
    ),
    Mutation(
        "positions are not committed",
        "engines/duckdb/sink.py",
        "        if positions:\n",
        "        if not positions:\n",
        "tests/engines/test_duckdb.py tests/ingest/test_landing.py",
    ),
    Mutation(
        "positions may go back",
        "engines/duckdb/sink.py",
        "greatest(next_offset, excluded.next_offset)",
        "excluded.next_offset",
        "tests/engines/test_duckdb.py tests/ingest/test_landing.py",
    ),
    Mutation(
        "landed_at follows a clock that goes back",
        "engines/duckdb/sink.py",
        "return now if time is None else max(now, time + timedelta(microseconds=1))",
        "return now",
        "tests/engines/test_duckdb.py",
    ),
    Mutation(
        "a redelivery within a commit lands twice",
        "engines/duckdb/sink.py",
        "select distinct on (message_id) * from batch",
        "select * from batch",
        "tests/engines/test_duckdb.py tests/ingest/test_push.py",
    ),
    Mutation(
        "landing goes on in a warehouse that was replaced",
        "engines/duckdb/sink.py",
        "if positions.get(key, 0) < seen:",
        "if False:",
        "tests/engines/test_duckdb.py tests/ingest/test_landing.py",
    ),
    Mutation(
        "a follower that idles does not look at its warehouse",
        "ingest/landing.py",
        "                    sink.verify()\n",
        "                    pass\n",
        "tests/ingest/test_landing.py",
    ),
    Mutation(
        "a new warehouse file is of the newest storage version",
        "engines/duckdb/file.py",
        'STORAGE_VERSION = "v1.2.0"',
        'STORAGE_VERSION = "latest"',
        "tests/engines/test_duckdb.py",
    ),
    Mutation(
        "a full disk ends a follower",
        "engines/duckdb/file.py",
        "        if is_full_disk(error):\n            return UnavailableError",
        "        if is_full_disk(error):\n            return UserError",
        "tests/engines/test_duckdb.py tests/ingest/test_landing.py",
    ),
    Mutation(
        "settings of the environment are merged with those of .env",
        "common/settings.py",
        "if name not in env_settings.env_vars}",
        "if True}",
        "tests/common/test_settings.py",
    ),
    Mutation(
        "the position stays before offsets without a message",
        "ingest/sources/kafka_assignment.py",
        "            self.moved.add(partition)\n",
        "",
        "tests/ingest/sources/test_kafka.py",
    ),
    Mutation(
        "a topic that ACLs deny is passed over",
        "ingest/sources/kafka_topics.py",
        "return [not_allowed(topic) for topic in sorted(self.denied)]",
        "return []",
        "tests/ingest/sources/test_kafka.py",
    ),
    Mutation(
        "a recreated BigQuery table is gone on in",
        "engines/bigquery/tables.py",
        "if now != self.created_at.setdefault(stream, now):",
        "if self.created_at.setdefault(stream, now) is None:",
        "tests/engines/test_bigquery.py",
    ),
    Mutation(
        "a log is landed by the id that it had before its first line",
        "ingest/sources/spool.py",
        "if len(ends) and log_id != self._ids[log.key]:",
        "if False:",
        "tests/ingest/sources/test_spool.py",
    ),
    Mutation(
        "messages are acknowledged before their commit",
        "ingest/landing.py",
        "                if batches:\n",
        "                if batches:\n"
        "                    [source.acknowledge(batch) for source, found in collected for batch in found.batches]\n",
        "tests/ingest/test_landing.py",
    ),
    Mutation(
        "what was fetched when landing is stopped is forgotten",
        "ingest/landing.py",
        "                if batches:\n                    if follow:",
        "                if batches and not stop.is_set():\n                    if follow:",
        "tests/ingest/test_landing.py",
    ),
    Mutation(
        "a replaced spool log is read on where the old one ended",
        "ingest/sources/spool.py",
        'if start and os.pread(file.fileno(), 1, start - 1) != b"\\n":',
        "if False:",
        "tests/ingest/sources/test_spool.py tests/ingest/test_landing.py",
    ),
    Mutation(
        "a torn line stays in the spool",
        "ingest/producers/spool.py",
        "is_new = _drop_torn_line(log.fileno()) == 0",
        "is_new = os.fstat(log.fileno()).st_size == 0",
        "tests/ingest/producers/test_spool.py",
    ),
    Mutation(
        "emit saves its cursor before the results are delivered",
        "ingest/emit.py",
        "            producer.flush()\n",
        "",
        "tests/ingest/test_emit.py",
    ),
    Mutation(
        "the simulator saves its state before the messages are delivered",
        "ingest/simulator/__init__.py",
        "        producer.flush()\n        plans.append(plan)\n        _write_state(state_path, seed, start, plans)\n",
        "        plans.append(plan)\n        _write_state(state_path, seed, start, plans)\n        producer.flush()\n",
        "tests/ingest/simulator/test_simulator.py",
    ),
    Mutation(
        "a new Kafka partition is read from its end",
        "ingest/sources/kafka_assignment.py",
        "self.next.get(partition, OFFSET_BEGINNING)",
        "self.next.get(partition, -1)",
        "tests/ingest/sources/test_kafka.py",
    ),
    Mutation(
        "messages that Kafka deleted are stepped over in silence",
        "ingest/sources/kafka_assignment.py",
        "telemetry.LOST.labels(self._streams[topic]).inc(low - expected)",
        "telemetry.LOST.labels(self._streams[topic]).inc(0)",
        "tests/ingest/sources/test_kafka.py",
    ),
    Mutation(
        "a Kafka topic that was created anew is read on at the old position",
        "engines/duckdb/sink.py",
        'and (topic_id == topic_ids.get(topic, "") or (topic_id == "" and source != "spool"))',
        "",
        "tests/engines/test_duckdb.py",
    ),
    Mutation(
        "leases of Pub/Sub messages run out during a slow commit",
        "ingest/sources/pubsub_leases.py",
        "expiring = [pull for pull in self._pulls if pull.expires < now + LEASE_MARGIN_SECONDS]",
        "expiring = []",
        "tests/ingest/sources/test_pubsub.py",
    ),
    Mutation(
        "a BigQuery load has a new id at each attempt",
        "engines/bigquery/load_jobs.py",
        "job_id=self._job_id(name)",
        'job_id=f"{name}_{time.time_ns()}"',
        "tests/engines/test_bigquery.py tests/bigquery/test_both_engines.py",
    ),
    Mutation(
        "an append to BigQuery does not name its offset",
        "engines/bigquery/write_stream.py",
        "AppendRowsRequest(write_stream=self.name, offset=offset)",
        "AppendRowsRequest(write_stream=self.name)",
        "tests/engines/test_write_stream.py",
    ),
    # --- push and its tokens
    Mutation(
        "a push is answered before its commit",
        "ingest/push.py",
        "            if failure := await self._committer.commit(stream, message):\n"
        "                raise HTTPException(503, failure)\n",
        "            asyncio.create_task(self._committer.commit(stream, message))\n",
        "tests/ingest/test_push.py",
    ),
    Mutation(
        "a token for another audience may push",
        "ingest/oidc.py",
        'if claims.get("aud") != self._audience:',
        "if False:",
        "tests/ingest/test_push.py",
    ),
    Mutation(
        "a token of an unverified address may push",
        "ingest/oidc.py",
        'if claims.get("email_verified") is not True:',
        "if False:",
        "tests/ingest/test_push.py",
    ),
    # --- publishing
    Mutation(
        "a build that failed is published",
        "dbt_project/__main__.py",
        "if result.success and is_publishable(settings, result.result.args):",
        "if is_publishable(settings, result.result.args):",
        BUILD,
    ),
    Mutation(
        "a build of some models is published",
        "dbt_project/__main__.py",
        "is_shared and not any(selections.values())",
        "is_shared",
        BUILD,
    ),
    Mutation(
        "a changed warehouse counts as built",
        "dbt_project/last_build.py",
        "last.warehouse == engine.state()",
        "last.warehouse is not None",
        "tests/dbt_project/test_last_build.py",
    ),
    Mutation(
        "the version that a reader may be opening is removed",
        "publishing/publish.py",
        "_sweep(folder, {before, version.name})",
        "_sweep(folder, {version.name})",
        "tests/serve/test_publish.py",
    ),
    Mutation(
        "a version is visible before it is whole",
        "publishing/publish.py",
        "                marts = artifacts.marts if artifacts else ()\n",
        "                version.mkdir()\n                marts = ()\n"
        '                (folder / "early").symlink_to(version.name)\n'
        '                (folder / "early").replace(folder / CURRENT)\n',
        "tests/serve/test_publish.py tests/serve/test_server.py",
    ),
    # --- answers and their parameters
    Mutation(
        "an answer is kept after the next build",
        "serve/answer_cache.py",
        "parts = (self.published.version, self._settings.serve_max_rows,",
        "parts = (self._settings.serve_max_rows,",
        "tests/serve/test_endpoints.py",
    ),
    Mutation(
        "a token may run every query",
        "serve/endpoints.py",
        'if allowed != "*" and name not in allowed:',
        "if False:",
        "tests/serve/test_endpoints.py",
    ),
    Mutation(
        "a query that took too long is an internal error",
        "engines/duckdb/reader.py",
        "        raise took_longer(timeout_seconds) from error\n    finally:",
        "        raise\n    finally:",
        "tests/serve/test_endpoints.py",
    ),
    Mutation(
        "a query may take all memory",
        "engines/duckdb/reader.py",
        '{"memory_limit": settings.serve_memory_limit}',
        "{}",
        "tests/serve/test_query.py tests/serve/test_endpoints.py",
    ),
    Mutation(
        "an answer cut off by its limit looks complete",
        "serve/answers.py",
        "return {**values, LIMIT: most + 1}, most",
        "return {**values, LIMIT: most}, most",
        ANSWERS,
    ),
    Mutation(
        "a limit leaves out the newest hours",
        "analyses/hourly_by_product.sql",
        "order by reporting_hour_at desc, events desc",
        "order by reporting_hour_at, events desc",
        ANSWERS,
    ),
    Mutation(
        "a large checkout overflows in its shares",
        "analyses/attribution_comparison.sql",
        "cast(coalesce(total_amount, 0) as numeric(33, 4)) as total_amount",
        "coalesce(total_amount, 0) as total_amount",
        "tests/analyses/test_extremes.py",
    ),
    Mutation(
        "a query that fails takes the dashboard along",
        "serve/dashboard/page.py",
        '        except UserError as failure:\n            return {"error": str(failure)}\n',
        "        except UserError:\n            raise\n",
        "tests/serve/test_dashboard.py",
    ),
    Mutation(
        "a spreadsheet computes what a text says",
        "serve/formats.py",
        'yield f"\'{value}"',
        "yield value",
        "tests/serve/test_endpoints.py",
    ),
    Mutation(
        "a header may have any size",
        "common/bounded_http.py",
        "if self._unparsed_bytes > MAX_HEAD_BYTES:",
        "if False:",
        "tests/common/test_bounded_http.py",
    ),
    Mutation(
        "a page of the web may push",
        "ingest/push.py",
        "if self._verifier is None else []",
        "if False else []",
        "tests/ingest/test_push.py",
    ),
    Mutation(
        "a period may end before it starts",
        "engines/query.py",
        "values[start] > values[end]",
        "values[start] is values[end]",
        "tests/serve/test_endpoints.py",
    ),
    Mutation(
        "a text parameter is pasted into the SQL",
        "dbt_project/macros/param.sql",
        "    cast(${{ name }} as {{ duckdb_type(type) }})",
        "    cast('${{ name }}' as {{ duckdb_type(type) }})",
        ANSWERS,
    ),
    Mutation(
        "end_time is inclusive",
        "dbt_project/macros/filters.sql",
        "{{ time }} < {{ end_time }}",
        "{{ time }} <= {{ end_time }}",
        ANSWERS,
    ),
    Mutation(
        "a brand is found in one spelling only",
        "dbt_project/macros/filters.sql",
        "(brand, 'lower(brand)', 'lower(' ~ brand ~ ')')",
        "(brand, 'brand', brand)",
        ANSWERS,
    ),
    Mutation(
        "a cart before the view counts in the funnel",
        "analyses/conversion_funnel.sql",
        "when event_type = 'cart' and event_at >= viewed_at then",
        "when event_type = 'cart' then",
        ANSWERS,
    ),
    Mutation(
        "examples of unlisted fields show letters beyond ASCII",
        "dbt_project/macros/engine/unlisted_fields.sql",
        r"1, 40), '\p{L}', 'a', 'g')",
        "1, 40), '[A-Za-z]', 'a', 'g')",
        CONTRACTS,
    ),
    Mutation(
        "an object that is none is no drift",
        "dbt_project/macros/engine/unlisted_fields.sql",
        """or len(json_keys({{ text }}, '$."{{ container }}"')) = 0""",
        "",
        CONTRACTS,
    ),
    Mutation(
        "field_drift counts landings, not messages",
        "dbt_project/models/intermediate/int_field_drift_daily.sql",
        "count(*) as messages",
        "count(distinct landed_at) as messages",
        CONTRACTS,
    ),
    Mutation(
        "the detail of a dead letter has personal values",
        "dbt_project/macros/contract_fields.sql",
        "and field.path not in contract.time and not field.personal %}",
        "and field.path not in contract.time %}",
        CONTRACTS,
    ),
    Mutation(
        "the time of an event drifts under another name",
        "dbt_project/models/analytics/field_drift.sql",
        "path = 'timestamp' then case stream",
        "path = 'time' then case stream",
        CONTRACTS,
    ),
    Mutation(
        "values that do not fit are no drift",
        "dbt_project/models/intermediate/int_field_drift_daily.sql",
        "    where reject_reason like 'invalid:%'",
        "    where reject_reason like 'invalid:p%'",
        ANSWERS,
    ),
    Mutation(
        "a query leaves out events without a value of a property",
        "analyses/event_properties.sql",
        "where lower({{ property }}) = 'all'",
        "where value is not null and lower({{ property }}) = 'all'",
        ANSWERS,
    ),
    Mutation(
        "a period of the dashboard is of UTC days",
        "serve/dashboard/filters.py",
        "datetime.combine(day, at, zone).astimezone(UTC)",
        "datetime.combine(day, at, UTC)",
        "tests/serve/test_dashboard.py",
    ),
    Mutation(
        "the funnel counts a person again every day",
        "serve/dashboard/panels.yml",
        "per: period",
        "per: day_and_category",
        "tests/serve/test_dashboard.py",
    ),
    Mutation(
        "the dashboard asks without its filters",
        "serve/dashboard/filters.py",
        "chosen = {name: value for name, value in given.items() if value}",
        'chosen = {name: value for name, value in given.items() if value and name != "brand"}',
        "tests/serve/test_dashboard.py",
    ),
    Mutation(
        "land takes every stream whatever --stream says",
        "ingest/commands/landing.py",
        "    streams = settings.selected(stream)\n    serve_metrics",
        "    streams = settings.selected(None)\n    serve_metrics",
        "tests/ingest/test_cli.py",
    ),
    Mutation(
        "two streams may share a topic",
        "common/settings.py",
        "if names.count(name) > 1",
        "if names.count(name) > 9",
        "tests/common/test_settings.py",
    ),
    Mutation(
        "a spool log that replaces another has its id",
        "ingest/producers/spool.py",
        "uuid.uuid4().hex.encode()",
        'b"0" * 32',
        "tests/ingest/sources/test_spool.py",
    ),
    Mutation(
        "a spool log with an id continues where one without was landed",
        "engines/duckdb/sink.py",
        """or (topic_id == "" and source != "spool"))""",
        """or topic_id == "")""",
        "tests/ingest/sources/test_spool.py",
    ),
    Mutation(
        "a CSV without the stream's columns is published",
        "ingest/replay/matching.py",
        "if not self._force and (missing := self._missing(columns)):",
        "if False and (missing := self._missing(columns)):",
        "tests/ingest/test_replay.py",
    ),
    Mutation(
        "NaN is JSON",
        "ingest/files/json_text.py",
        "parse_constant=_refuse_constant, ",
        "",
        "tests/ingest/test_files.py",
    ),
    Mutation(
        "history is replayed into a topic that deletes it",
        "ingest/replay/__init__.py",
        "if kept is not None and old:",
        "if False:",
        "tests/ingest/test_replay.py",
    ),
    Mutation(
        "replayed messages are published at the present time",
        "ingest/replay/rows.py",
        "yield Message(body(fields), key or None, {}, published_at)",
        "yield Message(body(fields), key or None, {}, None)",
        "tests/ingest/test_replay.py",
    ),
    Mutation(
        "a column with dots stays a name with dots",
        "ingest/files/columns.py",
        "steps = _steps(column)",
        "steps = [column]",
        "tests/ingest/test_replay.py",
    ),
    Mutation(
        "an id that messages share identifies events",
        "contracts/draft.py",
        'if line.field.is_unique:\n                return [self._as_id(line).path], f"each',
        'if True:\n                return [self._as_id(line).path], f"each',
        "tests/contracts/test_add.py",
    ),
    Mutation(
        "a promoted field is written without being read back",
        "contracts/promote.py",
        "    validate(file, text)\n",
        "",
        "tests/contracts/test_promote.py",
    ),
    Mutation(
        "what a check landed stays on disk",
        "contracts/staging.py",
        "        finally:\n            _clear(folder)",
        "        finally:\n            pass",
        "tests/contracts/test_check.py",
    ),
)


def copy_repository(folder: Path, source: Path) -> None:
    """Copy the files of the checkout, with dbt's parsed project, and link to .venv and .cache."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=source,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (source / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder / name)
    if (parsed := source / "dbt_project" / "target" / "warm").exists():
        shutil.copytree(parsed, folder / "dbt_project" / "target" / "warm")
    for name in (".venv", ".cache"):
        if (source / name).exists():
            (folder / name).symlink_to(source / name)


def outcome(mutation: Mutation, *, expected_only: bool, source: Path = ROOT) -> str:
    """The tier that notices: fast, slow or none; or what is wrong with the mutation."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        copy_repository(folder, source)
        target = folder / mutation.file
        if not target.exists() or mutation.right not in target.read_text():
            return "error: the text to replace is not in the file"
        target.write_text(target.read_text().replace(mutation.right, mutation.wrong))
        for tests in [mutation.tests.split()] if expected_only else [mutation.tests.split(), []]:
            for tier, options in TIERS.items():
                # the test of the list itself would fail for every mutation
                chosen = ["--ignore", "tests/test_mutations.py", *options, *tests]
                command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *chosen]
                try:
                    done = subprocess.run(
                        command,
                        cwd=folder,
                        # only whether tests fail matters: do not search for the smallest failing case
                        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "EXACT_SHRINK_SECONDS": "0"},
                        capture_output=True,
                        text=True,
                        check=False,
                        timeout=TIMEOUT_SECONDS,
                    )
                except subprocess.TimeoutExpired:
                    return tier
                if done.returncode == TESTS_FAILED:
                    return tier
                if done.returncode not in (0, NO_TESTS):
                    return f"error: pytest ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}"
    return "none"


def main(
    only: Annotated[str, typer.Option(help="Mutations whose name contains this text.")] = "",
    expected_only: Annotated[
        bool, typer.Option("--expected-only", help="Run only the tests that are expected to fail, not the whole tiers.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Mutations that run side by side.")] = 1,
    source: Annotated[Path, typer.Option(help="The checkout to break.")] = ROOT,
) -> None:
    """Break the product in many small ways; exit with 1 when a mutation goes unnoticed."""
    chosen = [mutation for mutation in MUTATIONS if only in mutation.name]

    def timed(mutation: Mutation) -> tuple[Mutation, str, float]:
        started = time.monotonic()
        return mutation, outcome(mutation, expected_only=expected_only, source=source), time.monotonic() - started

    found: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        for mutation, tier, seconds in pool.map(timed, chosen):
            found.append(tier)
            typer.echo(f"{tier:5} {seconds:5.0f} s  {mutation.name}")
    fast, slow = found.count("fast"), found.count("slow")
    typer.echo(f"{len(found)} mutations: {fast} noticed by the fast tier, {slow} by the slow tier only")
    if fast + slow < len(found):
        sys.exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
