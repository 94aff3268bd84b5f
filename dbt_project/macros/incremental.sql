{#-
  Runs an incremental model on DuckDB in one transaction. dbt-duckdb's own materialization asks for the columns of both tables
  several times and commits several times, which takes longer than merging a few hundred rows.
-#}
{% materialization incremental, adapter='duckdb', supported_languages=['sql'] %}
    {% if not is_incremental() or not merges_by_partition() %}
        {{ return(dbt.materialization_incremental_duckdb()) }}
    {% endif %}
    {% set target_relation = this.incorporate(type='table') %}
    {% set new_rows = make_temp_relation(target_relation).include(database=false, schema=false) %}
    {#- kept in `graph`, so that a process that runs a model again and again checks its columns once -#}
    {% set known_columns = graph.setdefault('columns_of_incremental', {}) %}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% if model.name not in known_columns and config.get('contract').enforced %}
        {% do get_assert_columns_equivalent(compiled_code) %}
    {% endif %}
    {% call statement('new_rows') %}
        create temporary table {{ new_rows }} as (
            {{ compiled_code }}
        )
    {% endcall %}
    {% if model.name not in known_columns %}
        {% do known_columns.update({model.name: merged_columns(new_rows, target_relation)}) %}
    {% endif %}
    {% call statement('main') %}
        {{ duckdb__get_incremental_merge_sql({
            'target_relation': target_relation,
            'temp_relation': new_rows,
            'unique_key': config.get('unique_key'),
            'dest_columns': known_columns[model.name]
        }) }}
    {% endcall %}
    {% do persist_docs(target_relation, model) %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% call statement('drop_new_rows') %}
        drop table {{ new_rows }}
    {% endcall %}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#- Returns the columns of the table, after adding those that only the new rows have. -#}
{% macro merged_columns(new_rows, target_relation) %}
    {% set columns = {new_rows.identifier: [], target_relation.identifier: []} %}
    {% for column in run_query(
        'select table_name, column_name, data_type from duckdb_columns() where (database_name = \'temp\' and table_name = \''
        ~ new_rows.identifier ~ "') or (database_name = '" ~ target_relation.database ~ "' and schema_name = '"
        ~ target_relation.schema ~ "' and table_name = '" ~ target_relation.identifier ~ "') order by column_index"
    ).rows %}
        {% do columns[column.table_name].append((column.column_name, column.data_type)) %}
    {% endfor %}
    {% if columns[new_rows.identifier] | sort != columns[target_relation.identifier] | sort %}
        {% do process_schema_changes(config.get('on_schema_change'), new_rows, target_relation) %}
        {{ return(adapter.get_columns_in_relation(target_relation)) }}
    {% endif %}
    {% set found = [] %}
    {% for name, type in columns[target_relation.identifier] %}
        {% do found.append(api.Column(name, type)) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}
