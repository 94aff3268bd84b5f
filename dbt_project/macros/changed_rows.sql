{#-
  Tests read only the partitions that changed since the last successful build, so that the cost of a test, too, depends on the
  new messages. A build in which anything failed does not count: what failed is tested again until it passes. `make test-data`
  (var test_all_partitions) reads everything.
-#}

{#- dbt calls this macro for the relation that a generic test reads. -#}
{% macro default__get_where_subquery(relation) -%}
    {%- set filters = [config.get('where'), changed_predicate(relation)] | select | list -%}
    {{ return('(select * from ' ~ relation ~ ' where ' ~ filters | join(' and ') ~ ') dbt_subquery' if filters else relation) }}
{%- endmacro %}

{#- `from {{ changed_rows(ref('agg_events_daily')) }}` in a singular test: the rows in changed partitions. -#}
{% macro changed_rows(relation) -%}
    {%- set predicate = changed_predicate(relation) -%}
    {{ return('(select * from ' ~ relation ~ ' where ' ~ predicate ~ ')' if predicate else relation) }}
{%- endmacro %}

{#- Returns a condition on the partition column; empty if every row is to be read. A view has no partitions of its own: its
    `meta: partitions_of` names the model whose partitions it shows. -#}
{% macro changed_predicate(relation) %}
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

{#- Returns the dates of the partitions of a model that changed since the last successful build, as ISO texts; none if every
    row is to be read. -#}
{% macro changed_dates(name) %}
    {% set tested = model_named(name) if has_state() else none %}
    {% if not tested or not tested.config.get('partition_by') or var('test_all_partitions') %}
        {{ return(none) }}
    {% endif %}
    {% set touched = run_query(
        'select distinct partition_date from ' ~ state_table('touched_partitions')
        ~ " where model = '" ~ name ~ "' and recorded_at > (select coalesce(max(recorded_at), timestamp '2000-01-01') from "
        ~ state_table('successful_builds') ~ ')'
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

{#-
  Records which partitions of the current model were rewritten.

  Args:
      dates: ISO texts; ['null'] for all partitions
-#}
{% macro record_touched_partitions(dates) %}
    {% set rows = [] %}
    {% for date in dates %}
        {% do rows.append("select '" ~ model.name ~ "', " ~ ('cast(null as date)' if date == 'null' else "date '" ~ date ~ "'") ~ ', ' ~ change_time()) %}
    {% endfor %}
    {% if rows %}
        {% do run_query(
            'insert into ' ~ state_table('touched_partitions') ~ ' (model, partition_date, recorded_at) ' ~ rows | join(' union all ')
        ) %}
    {% endif %}
{% endmacro %}
