{#-
  What builds remember, in append-only tables of the schema `intermediate`:
    watermarks (node, stream, upper_bound, settings): how far each incremental model has read each stream;
      node 'raw' has the upper bounds of the build.
    rebuilds (model, step, code): when a rebuild of all rows of a model began and ended, and with which SQL.
    touched_partitions (model, partition_date): which partitions a merge rewrote; null for all of them.
    rewritten_rows (model, row_key), on DuckDB: which rows a merge rewrote, for models with a single key.
    removed_messages (stream, kind, step, removed_before): what retention has removed (macros/retention.sql).
    successful_builds (invocation_id): the builds in which every test passed; tests read what changed since the last.
    pins (pin_id): when marts were published and rounds of tests began, those before the last 20 deleted; publishing writes what
      changed since the pin of the version that it updates.
  Models only append, so that models that run at the same time neither block nor undo each other. `recorded_at` of partitions and
  rebuilds is later than that of every successful build and pin before, even if the clock went back.
-#}

{% macro state_table(name) %}
    {{ return(api.Relation.create(
        database=target.database, schema=generate_schema_name('intermediate', none) | trim, identifier=name
    )) }}
{% endmacro %}

{#- Whether these tables exist. A build creates them first; where SQL is only compiled, as by the linter, they may not. -#}
{% macro has_state() %}
    {{ return(execute and (starts_build() or load_relation(state_table('watermarks')) is not none)) }}
{% endmacro %}

{% macro starts_build() %}
    {{ return(flags.WHICH in ('build', 'run', 'test', 'snapshot', 'seed', 'retry')) }}
{% endmacro %}

{% macro start_build() %}
    {% if execute and starts_build() %}
        {% do check_all_rows_are_read() %}
        {% do check_sources() %}
        {% do check_time_zone() %}
        {% do adapter.create_schema(state_table('watermarks')) %}
        {% do migrate_state() %}
        {% do create_state_table('watermarks', ['node', 'stream', 'settings'], 'upper_bound timestamp') %}
        {% do create_state_table('rebuilds', ['model', 'step', 'code'], none) %}
        {% do create_state_table('touched_partitions', ['model'], 'partition_date date') %}
        {% do create_state_table('removed_messages', ['stream', 'kind', 'step'], 'removed_before timestamp') %}
        {% do create_state_table('successful_builds', ['invocation_id'], none) %}
        {% do create_state_table('pins', ['pin_id'], none) %}
        {% do create_state_table('rewritten_rows', ['model', 'row_key'], none) if target.type == 'duckdb' %}
        {% do read_removals() %}
        {% do plan_rebuilds() %}
        {% do check_settings() %}
        {% do check_raw_is_whole() %}
        {% do check_removed_messages() %}
        {% do set_upper_bounds() %}
    {% endif %}
{% endmacro %}

{#- Renames what an earlier version of the project created. -#}
{% macro migrate_state() %}
    {% set green_builds = load_relation(state_table('green_builds')) %}
    {% if green_builds is not none %}
        {% set watermarks = state_table('watermarks') %}
        {#- not by adapter.get_columns_in_relation, which begins a transaction that the hook does not commit -#}
        {% if 'upto' in run_query('select * from ' ~ watermarks ~ ' limit 0').column_names %}
            {% do run_query('alter table ' ~ watermarks ~ ' rename column upto to upper_bound') %}
        {% endif %}
        {% if load_relation(state_table('successful_builds')) is none %}
            {% do run_query('alter table ' ~ green_builds ~ ' rename to successful_builds') %}
        {% else %}
            {#- the earlier version ran again: it created its table, which stayed empty since its builds now fail -#}
            {% do run_query('drop table ' ~ green_builds) %}
        {% endif %}
    {% endif %}
{% endmacro %}

{#- Rejects --empty and --sample, with which models read no or few rows: watermarks would pass rows that were not read, and
    snapshots would record deletions that did not happen. -#}
{% macro check_all_rows_are_read() %}
    {% if flags.EMPTY or flags.SAMPLE %}
        {% do exceptions.raise_compiler_error(
            '--empty and --sample cannot be used here: later builds would not read the rows that they leave out. To try models out, '
            ~ 'build under another prefix (BUILD_PREFIX=try_)'
        ) %}
    {% endif %}
{% endmacro %}

{#- Stops a build of a warehouse in which nothing has landed yet. -#}
{% macro check_sources() %}
    {% for source in graph.sources.values() if source.source_name == 'raw' %}
        {% if adapter.get_relation(source.database, source.schema, source.identifier) is none %}
            {% do exceptions.raise_compiler_error(
                'there is no table ' ~ source.schema ~ '.' ~ source.identifier ~ ' in ' ~ (target.path or source.database)
                ~ ': land messages first (`make ingest`), or set '
                ~ ('WAREHOUSE_PATH' if target.type == 'duckdb' else 'GCP_PROJECT and DATASET_PREFIX')
            ) %}
        {% endif %}
    {% endfor %}
{% endmacro %}

{#- Stops a build where the session's time zone is not UTC: SQL reads and writes times without a zone in that of the session. -#}
{% macro check_time_zone() %}
    {% set hours = run_query(
        "select extract(hour from timestamp '2026-01-01 00:00:00+00') + extract(hour from timestamp '2026-07-01 00:00:00+00') as hours"
    ).rows[0].hours %}
    {% if hours != 0 %}
        {% do exceptions.raise_compiler_error(
            "the default time zone of the warehouse must be UTC: on BigQuery run "
            ~ "ALTER PROJECT `" ~ target.database ~ "` SET OPTIONS (`region-" ~ target.location | lower ~ ".default_time_zone` = 'UTC')"
        ) %}
    {% endif %}
{% endmacro %}

{#-
  Args:
      name: table
      texts: names of its columns of text
      other: name and type of one more column, or none
-#}
{% macro create_state_table(name, texts, other) %}
    {% do run_query(
        'create table if not exists ' ~ state_table(name) ~ ' ('
        ~ texts | join(' ' ~ dbt.type_string() ~ ', ') ~ ' ' ~ dbt.type_string() ~ ', '
        ~ (other ~ ', ' if other else '') ~ 'recorded_at timestamp)'
    ) %}
{% endmacro %}

{#- Records the newest landed_at of each stream as the upper bound of this build: a message that lands meanwhile waits for the
    next one. Only what landed after the last upper bound is read for it. -#}
{% macro set_upper_bounds() %}
    {% set last_bound = watermarks_of('raw') %}
    {% set bounds %}
        {% for source in graph.sources.values() if source.source_name == 'raw' %}
        select '{{ source.name }}' as stream, {{ upper_bound('max(landed_at)') }} as upper_bound
        from {{ source.relation_name }}
        {{ "where landed_at > timestamp '" ~ last_bound[source.name] ~ "'" if source.name in last_bound }}
        {{ 'union all' if not loop.last }}
        {% endfor %}
    {% endset %}
    {% do run_query(
        'insert into ' ~ state_table('watermarks') ~ ' (node, stream, upper_bound, settings, recorded_at) '
        ~ "select 'raw', stream, upper_bound, '{}', " ~ now_utc() ~ ' from (' ~ bounds ~ ') as bounds where upper_bound is not null '
        ~ 'and not exists (select 1 from ' ~ state_table('watermarks') ~ " as known where known.node = 'raw' "
        ~ 'and known.stream = bounds.stream and known.upper_bound >= bounds.upper_bound)'
    ) %}
    {% do graph.update({'watermarks_of_run': none}) %}
    {% do set_change_floor() %}
{% endmacro %}

{#- Reads once for all changes to come what `change_time` has to be later than. -#}
{% macro set_change_floor() %}
    {% do graph.update({'change_floor': run_query(
        'select coalesce(' ~ timestamp_text('max(recorded_at) + interval 1 microsecond') ~ ", '2000-01-01') as floor from (select "
        ~ 'recorded_at from ' ~ state_table('pins') ~ ' union all select recorded_at from ' ~ state_table('successful_builds')
        ~ ') as moments'
    ).rows[0].floor}) if target.type == 'duckdb' %}
{% endmacro %}

{#- Returns, by stream, the time as text up to which a model has read it; for node 'raw', up to which this build reads it. -#}
{% macro watermarks_of(node) %}
    {{ return(latest_watermarks().get(node, {}) if has_state() else {}) }}
{% endmacro %}

{#- The time to record of a change: later than every successful build and pin so far, even if the clock went back. Google's clock does
    not, and there a subquery would be billed. -#}
{% macro change_time() -%}
    {{ return(adapter.dispatch('change_time')()) }}
{%- endmacro %}

{% macro duckdb__change_time() -%}
    greatest({{ now_utc() }}, timestamp '{{ graph.get('change_floor', '2000-01-01') }}')
{%- endmacro %}

{% macro bigquery__change_time() -%}
    {{ now_utc() }}
{%- endmacro %}

{#- The time to record of a successful build: no earlier than its changes. -#}
{% macro build_time() -%}
    {{ return(adapter.dispatch('build_time')()) }}
{%- endmacro %}

{% macro duckdb__build_time() -%}
    greatest(
        {{ change_time() }},
        (select max(recorded_at) from {{ state_table('touched_partitions') }}),
        (select max(recorded_at) from {{ state_table('rewritten_rows') }}),
        (select max(recorded_at) from {{ state_table('rebuilds') }})
    )
{%- endmacro %}

{% macro bigquery__build_time() -%}
    {{ now_utc() }}
{%- endmacro %}

{#-
  Records a build that ran every test of the project and in which nothing failed. Deletes what nothing reads any more, while no
  model runs: the builds before the last 20, and then what was recorded before the first of these. Publishing relies on the
  order: if a build is there, so is everything that changed since.
-#}
{% macro finish_build(results) %}
    {% if execute and flags.WHICH == 'build' %}
        {% set not_passed = results | rejectattr('status', 'in', ['success', 'pass', 'warn', 'no-op']) | list %}
        {% for id, node in graph.nodes.items()
            if node.resource_type == 'test' and id not in selected_resources %}
            {% do not_passed.append(id) %}
        {% endfor %}
        {% if not not_passed %}
            {% do record_successful_build(build_time()) %}
        {% endif %}
    {% endif %}
{% endmacro %}

{#- Records the present moment; returns SQL of its time. Everything that has changed so far is recorded no later, everything that
    changes from now on is recorded later. -#}
{% macro pin() %}
    {% do run_query(
        'insert into ' ~ state_table('pins') ~ " (pin_id, recorded_at) select '" ~ modules.datetime.datetime.now().isoformat()
        ~ "', " ~ build_time()
    ) %}
    {{ return("timestamp '" ~ run_query(
        'select ' ~ timestamp_text('max(recorded_at)') ~ ' as pinned_at from ' ~ state_table('pins')
    ).rows[0].pinned_at ~ "'") }}
{% endmacro %}

{#-
  Records that every test passed on all rows from before a time, and deletes what nothing reads any more: pins but the last 20,
  and what was recorded before the first of these and before the last successful build. Publishing relies on the order: if a
  pin is there, so is everything that changed since. Then removes old messages.

  Args:
      tested_at: SQL of a UTC time
-#}
{% macro record_successful_build(tested_at) %}
    {% set builds, pins = state_table('successful_builds'), state_table('pins') %}
    {% do run_query(
        'insert into ' ~ builds ~ " (invocation_id, recorded_at) select '" ~ invocation_id ~ "', " ~ tested_at
    ) %}
    {% do run_query(
        'delete from ' ~ pins ~ ' where recorded_at < (select min(recorded_at) from (select recorded_at from ' ~ pins
        ~ ' order by recorded_at desc limit 20) as last_pins)'
    ) %}
    {% for changes in ['touched_partitions'] + (['rewritten_rows'] if target.type == 'duckdb' else []) %}
        {% do run_query(
            'delete from ' ~ state_table(changes) ~ ' where recorded_at < (select min(recorded_at) from (select recorded_at from '
            ~ pins ~ ' union all select max(recorded_at) from ' ~ builds ~ ') as needed)'
        ) %}
    {% endfor %}
    {% do run_query(
        'delete from ' ~ state_table('watermarks') ~ ' as earlier where exists (select 1 from '
        ~ state_table('watermarks') ~ ' as later where later.node = earlier.node and later.stream = earlier.stream'
        ~ ' and later.upper_bound >= earlier.upper_bound and later.recorded_at > earlier.recorded_at)'
    ) %}
    {% do remove_old_messages() %}
{% endmacro %}
