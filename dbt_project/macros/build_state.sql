{#-
  What builds remember, in three append-only tables of the schema `intermediate`:
    watermarks (node, stream, upto, settings): how far each incremental model has read each stream;
      node 'raw' is the cut, the upper bound of the whole build.
    touched_partitions (model, partition_date): what each merge has rewritten.
    green_builds (invocation_id): when every test last passed; tests read what was touched since.
  Append-only, so that two models never wait for or undo each other.
-#}

{% macro state_table(name) -%}
    {{ generate_schema_name('intermediate', none) | trim }}.{{ name }}
{%- endmacro %}

{% macro start_build() %}
    {% if execute and flags.WHICH in ('build', 'run', 'test', 'snapshot', 'seed', 'retry') %}
        {% do run_query('create schema if not exists ' ~ generate_schema_name('intermediate', none) | trim) %}
        {% do create_state_table('watermarks', ['node', 'stream', 'settings'], 'upto timestamp') %}
        {% do create_state_table('touched_partitions', ['model'], 'partition_date date') %}
        {% do create_state_table('green_builds', ['invocation_id'], none) %}
        {% do check_settings() %}
        {% do cut_streams() %}
    {% endif %}
{% endmacro %}

{% macro create_state_table(name, texts, other) %}
    {% do run_query(
        'create table if not exists ' ~ state_table(name) ~ ' ('
        ~ texts | join(' ' ~ dbt.type_string() ~ ', ') ~ ' ' ~ dbt.type_string() ~ ', '
        ~ (other ~ ', ' if other else '') ~ 'recorded_at timestamp)'
    ) %}
{% endmacro %}

{#- Reads max(landed_at) of each stream once: a row that lands meanwhile waits for the next build. -#}
{% macro cut_streams() %}
    {% set cuts %}
        {% for source in graph.sources.values() if source.source_name == 'raw' %}
        select '{{ source.name }}' as stream, {{ held_back('max(landed_at)') }} as upto
        from {{ source.relation_name }}
        {{ 'union all' if not loop.last }}
        {% endfor %}
    {% endset %}
    {% do run_query(
        'insert into ' ~ state_table('watermarks') ~ ' (node, stream, upto, settings, recorded_at) '
        ~ "select 'raw', stream, upto, '{}', " ~ now_utc() ~ ' from (' ~ cuts ~ ') as cuts where upto is not null '
        ~ 'and not exists (select 1 from ' ~ state_table('watermarks') ~ " as known where known.node = 'raw' "
        ~ 'and known.stream = cuts.stream and known.upto >= cuts.upto)'
    ) %}
{% endmacro %}

{#- A build is green when it ran every test of the project and nothing failed. -#}
{% macro finish_build(results) %}
    {% if execute and flags.WHICH == 'build' %}
        {% set failed = results | selectattr('status', 'in', ['error', 'fail', 'skipped', 'runtime error', 'partial success']) | list %}
        {% set left_out = [] %}
        {% for id, node in graph.nodes.items() if node.resource_type == 'test' and id not in selected_resources %}
            {% do left_out.append(id) %}
        {% endfor %}
        {% if not failed and not left_out %}
            {% do run_query(
                'insert into ' ~ state_table('green_builds') ~ " (invocation_id, recorded_at) select '"
                ~ invocation_id ~ "', " ~ now_utc()
            ) %}
        {% endif %}
    {% endif %}
{% endmacro %}
