{#-
  Tests read what was touched since the last green build, so that their cost, too, is that of the new messages. Only a
  build in which everything passed moves on: a failure is tested again until it is mended.
  `make test-data` (var test_all_partitions) reads everything.
-#}

{#- Every generic test reads its model through this. -#}
{% macro default__get_where_subquery(relation) -%}
    {%- set filters = [config.get('where'), touched_predicate(relation)] | select | list -%}
    {{ return('(select * from ' ~ relation ~ ' where ' ~ filters | join(' and ') ~ ') dbt_subquery' if filters else relation) }}
{%- endmacro %}

{#- `from {{ changed_rows(ref('agg_events_daily')) }}` in a singular test. -#}
{% macro changed_rows(relation) -%}
    {%- set predicate = touched_predicate(relation) -%}
    {{ return('(select * from ' ~ relation ~ ' where ' ~ predicate ~ ')' if predicate else relation) }}
{%- endmacro %}

{#- A predicate on the partition column, or none when everything is to be read. A view has the partitions of the table
    that its `meta: partitions_of` names. -#}
{% macro touched_predicate(relation) %}
    {% set tested = model_named(relation.identifier) if has_state() else none %}
    {% set name = tested.config.get('meta', {}).get('partitions_of', tested.name) if tested else relation.identifier %}
    {% set dates = changed_dates(name) %}
    {% if dates is none %}
        {{ return(none) }}
    {% endif %}
    {% set partition_by = model_named(name).config.partition_by %}
    {{ return(
        in_dates(partition_by.field, dates) if partition_by.data_type == 'date' else landed_in(partition_by.field, dates)
    ) }}
{% endmacro %}

{#- The partitions of a model that were touched since the last green build; none when everything is to be read. -#}
{% macro changed_dates(name) %}
    {% set tested = model_named(name) if has_state() else none %}
    {% if not tested or not tested.config.get('partition_by') or var('test_all_partitions') %}
        {{ return(none) }}
    {% endif %}
    {% set touched = run_query(
        'select distinct partition_date from ' ~ state_table('touched_partitions')
        ~ " where model = '" ~ name ~ "' and recorded_at > (select coalesce(max(recorded_at), timestamp '2000-01-01') from "
        ~ state_table('green_builds') ~ ')'
    ).rows | map(attribute=0) | list %}
    {{ return(none if none in touched else touched | map('string') | sort) }}
{% endmacro %}

{% macro model_named(name) %}
    {% for node in graph.nodes.values()
        if node.resource_type == 'model' and node.name == name and node.package_name == project_name %}
        {{ return(node) }}
    {% endfor %}
    {{ return(none) }}
{% endmacro %}

{#- Remembers what a merge rewrites; ['null'] stands for everything. -#}
{% macro log_touched_partitions(dates) %}
    {% set rows = [] %}
    {% for date in dates %}
        {% do rows.append("select '" ~ model.name ~ "', " ~ ('cast(null as date)' if date == 'null' else "date '" ~ date ~ "'") ~ ', ' ~ now_utc()) %}
    {% endfor %}
    {% if rows %}
        {% do run_query(
            'insert into ' ~ state_table('touched_partitions') ~ ' (model, partition_date, recorded_at) ' ~ rows | join(' union all ')
        ) %}
    {% endif %}
{% endmacro %}
