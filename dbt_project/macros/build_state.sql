{#-
  What builds remember, in append-only tables of the schema `intermediate`:
    watermarks (node, stream, upto, settings): how far each incremental model has read each stream;
      node 'raw' is the upper bound of the whole build.
    rebuilds (model, step, code): when a rebuild of all rows of a model began and was done, and by which code.
    touched_partitions (model, partition_date): what each merge has rewritten.
    green_builds (invocation_id): when every test last passed; tests read what was touched since.
  Models only append, so that two of them never wait for or undo each other.
-#}

{% macro state_table(name) %}
    {{ return(api.Relation.create(
        database=target.database, schema=generate_schema_name('intermediate', none) | trim, identifier=name
    )) }}
{% endmacro %}

{#- Whether these tables are there: a build creates them first; who only compiles, as the linter does, may have none. -#}
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
        {% do create_state_table('watermarks', ['node', 'stream', 'settings'], 'upto timestamp') %}
        {% do create_state_table('rebuilds', ['model', 'step', 'code'], none) %}
        {% do create_state_table('touched_partitions', ['model'], 'partition_date date') %}
        {% do create_state_table('green_builds', ['invocation_id'], none) %}
        {% do plan_rebuilds() %}
        {% do check_settings() %}
        {% do check_raw_is_whole() %}
        {% do set_upper_bounds() %}
    {% endif %}
{% endmacro %}

{#- With --empty and --sample models read no or few rows, but dbt keeps what comes of it: watermarks would pass what was not
    read, views would stay without rows, and snapshots would record that everything was deleted. -#}
{% macro check_all_rows_are_read() %}
    {% if flags.EMPTY or flags.SAMPLE %}
        {% do exceptions.raise_compiler_error(
            '--empty and --sample cannot be used here: later builds would not read the rows that they leave out. To try models out, '
            ~ 'build under another prefix (BUILD_PREFIX=try_)'
        ) %}
    {% endif %}
{% endmacro %}

{#- Says so at once when there is nothing to build from, as in a warehouse that dbt has just made. -#}
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

{#- Literals, dates of times and texts of times are those of the session's zone: it has to be UTC. -#}
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

{% macro create_state_table(name, texts, other) %}
    {% do run_query(
        'create table if not exists ' ~ state_table(name) ~ ' ('
        ~ texts | join(' ' ~ dbt.type_string() ~ ', ') ~ ' ' ~ dbt.type_string() ~ ', '
        ~ (other ~ ', ' if other else '') ~ 'recorded_at timestamp)'
    ) %}
{% endmacro %}

{#- Reads max(landed_at) of each stream once: a row that lands meanwhile waits for the next build. What landed before the
    last upper bound is not read again. -#}
{% macro set_upper_bounds() %}
    {% set last_bound = watermarks_of('raw') %}
    {% set bounds %}
        {% for source in graph.sources.values() if source.source_name == 'raw' %}
        select '{{ source.name }}' as stream, {{ held_back('max(landed_at)') }} as upto
        from {{ source.relation_name }}
        {{ "where landed_at > timestamp '" ~ last_bound[source.name] ~ "'" if source.name in last_bound }}
        {{ 'union all' if not loop.last }}
        {% endfor %}
    {% endset %}
    {% do run_query(
        'insert into ' ~ state_table('watermarks') ~ ' (node, stream, upto, settings, recorded_at) '
        ~ "select 'raw', stream, upto, '{}', " ~ now_utc() ~ ' from (' ~ bounds ~ ') as bounds where upto is not null '
        ~ 'and not exists (select 1 from ' ~ state_table('watermarks') ~ " as known where known.node = 'raw' "
        ~ 'and known.stream = bounds.stream and known.upto >= bounds.upto)'
    ) %}
{% endmacro %}

{#- Stream to the time, as text, up to which a model has read it; node 'raw': up to which the build reads it. -#}
{% macro watermarks_of(node) %}
    {% set found = {} %}
    {% set rows = run_query(
        'select stream, ' ~ timestamp_text('max(upto)') ~ ' as upto from ' ~ state_table('watermarks')
        ~ " where node = '" ~ node ~ "' group by stream"
    ).rows if has_state() else [] %}
    {% for row in rows %}
        {% do found.update({row.stream: row.upto}) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#-
  A build is green when it ran every test of the project and nothing failed. What the tables remember from before it
  has no reader any more; it goes, here where nothing else runs.
-#}
{% macro finish_build(results) %}
    {% if execute and flags.WHICH == 'build' %}
        {% set not_green = results | rejectattr('status', 'in', ['success', 'pass', 'warn', 'no-op']) | list %}
        {% for id, node in graph.nodes.items()
            if node.resource_type == 'test' and id not in selected_resources %}
            {% do not_green.append(id) %}
        {% endfor %}
        {% if not not_green %}
            {% do run_query(
                'insert into ' ~ state_table('green_builds') ~ " (invocation_id, recorded_at) select '"
                ~ invocation_id ~ "', " ~ now_utc()
            ) %}
            {% do run_query(
                'delete from ' ~ state_table('touched_partitions') ~ ' where recorded_at < (select max(recorded_at) from '
                ~ state_table('green_builds') ~ ')'
            ) %}
            {% do run_query(
                'delete from ' ~ state_table('watermarks') ~ ' as earlier where exists (select 1 from '
                ~ state_table('watermarks') ~ ' as later where later.node = earlier.node and later.stream = earlier.stream'
                ~ ' and later.upto >= earlier.upto and later.recorded_at > earlier.recorded_at)'
            ) %}
        {% endif %}
    {% endif %}
{% endmacro %}
