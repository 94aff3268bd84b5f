{#- How the rows of an incremental model replace those in its table: only in the partitions that the new rows are in. -#}

{#- Whether the macros below replace the rows of this model. dbt's own macros do it for models of packages, and for models with
    options of dbt's merge that the macros below lack. -#}
{% macro merges_by_partition() %}
    {% for option in ('merge_update_columns', 'merge_exclude_columns', 'merge_clauses', 'incremental_predicates') if config.get(option) %}
        {{ return(false) }}
    {% endfor %}
    {{ return(model.package_name == project_name) }}
{% endmacro %}

{#- dbt calls this macro to merge on DuckDB. Rows with the same key are deleted and the new ones inserted, in the model's
    transaction: DuckDB's MERGE took 163 s where these two take 1 s (250,000 rows of 5 million). For a model without a unique
    key, rows are only inserted: its own SQL leaves out rows that the table already has. -#}
{% macro duckdb__get_incremental_merge_sql(args) %}
    {% if not merges_by_partition() %}
        {{ return(dbt.duckdb__get_incremental_merge_sql(args)) }}
    {% endif %}
    {% set unique_key = args['unique_key'] or [] %}
    {% set rows = args['temp_relation'] %}
    {% set merge = duckdb__get_delete_insert_merge_sql(
        args['target_relation'], rows, [unique_key] if unique_key is string else unique_key, args['dest_columns'],
        merge_predicates(rows, 'DBT_INCREMENTAL_TARGET')
    ) %}
    {{ return(merge ~ ';' ~ record_rewritten_rows(rows, unique_key)) }}
{% endmacro %}

{#- Records which rows a merge rewrote, so that publishing need not compare those of whole days. Only for models with a single key:
    the others count whole days again. -#}
{% macro record_rewritten_rows(rows, unique_key) %}
    {% if unique_key is string and unique_key != config.get('partition_by', {}).get('field') %}
        insert into {{ state_table('rewritten_rows') }} (model, row_key, recorded_at)
        select '{{ model.name }}', {{ unique_key }}, {{ change_time() }} from {{ rows }};
    {% endif %}
{% endmacro %}

{#- dbt calls this macro to merge on BigQuery. -#}
{% macro bigquery__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates) %}
    {% if not merges_by_partition() %}
        {{ return(default__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates)) }}
    {% endif %}
    {% set predicates = merge_predicates(source, 'DBT_INTERNAL_DEST') %}
    {% if unique_key %}
        {{ return(default__get_merge_sql(target, source, unique_key, dest_columns, predicates)) }}
    {% else %}
        {% set columns = get_quoted_csv(dest_columns | map(attribute='name')) %}
        {{ return('insert into ' ~ target ~ ' (' ~ columns ~ ') select ' ~ columns ~ ' from ' ~ source) }}
    {% endif %}
{% endmacro %}

{#-
  Returns the conditions of a merge on the partitions of the target, and records these partitions for the tests.

  Args:
      rows: relation of the new rows
      target: alias of the target in the merge
-#}
{% macro merge_predicates(rows, target) %}
    {% set partition_by = config.get('partition_by') %}
    {% if not partition_by %}
        {{ return([]) }}
    {% endif %}
    {% set partitions %}
        select distinct cast({{ partition_by.field }} as date) as first_date, cast({{ partition_by.field }} as date) as last_date
        from {{ rows }}
    {% endset %}
    {% set dates = affected_dates(partitions) %}
    {% do record_touched_partitions(dates) %}
    {{ return([target ~ '.' ~ partition_predicate(partition_by, dates)]) }}
{% endmacro %}

{#- For a timestamp a lower bound is enough: models with such partitions are partitioned by landing time, and new rows are
    the last to land. -#}
{% macro partition_predicate(partition_by, dates) -%}
    {%- if not dates -%}
        {{ partition_by.field }} is null
    {%- elif partition_by.data_type == 'date' -%}
        {{ in_dates(partition_by.field, dates) }}
    {%- else -%}
        {{ partition_by.field }} >= timestamp '{{ dates[0] }}'
    {%- endif -%}
{%- endmacro %}

{#- dbt calls this macro to create a table on DuckDB, which has no partitions: a scan skips blocks of rows by their smallest
    and largest date instead. So a table is written in the order of its partition column; joins and windows would spread
    each date over all blocks, and every new day would read the whole history. Models without a unique key or partitions by
    date, such as staging and the facts, keep the order of landing. -#}
{% macro duckdb__create_table_as(temporary, relation, compiled_code, language='sql', partitioned_by=none, sorted_by=none) %}
    {% set partition_by = config.get('partition_by', {}) %}
    {% if language == 'sql' and not temporary and merges_by_partition() and config.get('unique_key') and partition_by.data_type == 'date' %}
        {% set compiled_code = 'select * from (' ~ compiled_code ~ ') as model_rows order by ' ~ partition_by.field %}
    {% endif %}
    {{ return(dbt.duckdb__create_table_as(temporary, relation, compiled_code, language, partitioned_by, sorted_by)) }}
{% endmacro %}

{#- dbt-duckdb would warn about partition_by, which is for BigQuery. -#}
{% macro duckdb__get_partitioned_by(relation, temporary) %}
    {{ return(none if model.package_name == project_name else dbt.duckdb__get_partitioned_by(relation, temporary)) }}
{% endmacro %}
