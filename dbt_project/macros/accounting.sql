{#- What dbt_project/tests/every_message_is_accounted_for.sql compares. -#}

{#- Returns (relation, column, streams): the relation must have as many rows as the sum of this column of
    landing_reconciliation over these streams. -#}
{% macro accounted_relations() %}
    {% set found = [
        (ref('fct_events'), 'accepted', event_streams()),
        (ref('dead_letters'), 'rejected', streams())
    ] %}
    {% for stream, history in entity_streams().items() %}
        {% do found.append((ref(history), 'accepted', [stream])) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}

{#- Whether a model has read each stream as far as the accounting: after a build with --select, one may be ahead of the other. -#}
{% macro is_as_far_as_the_accounting(model_name) %}
    {% set own, bounds = watermarks_of(model_name), watermarks_of('landing_reconciliation') %}
    {% for stream in own if own[stream] != bounds.get(stream) %}
        {{ return(false) }}
    {% endfor %}
    {{ return(own | length > 0) }}
{% endmacro %}

{#- Returns the tables of messages in the raw schema that are not sources: their messages are in no mart. -#}
{% macro raw_tables_without_a_model() %}
    {% set found = [] %}
    {% if execute %}
        {% set sources = graph.sources.values() | selectattr('source_name', 'equalto', 'raw') | list %}
        {% set schema = api.Relation.create(database=sources[0].database, schema=sources[0].schema) %}
        {% for name in tables_of_messages(schema) if name not in sources | map(attribute='identifier') %}
            {% do found.append(api.Relation.create(database=schema.database, schema=schema.schema, identifier=name)) %}
        {% endfor %}
    {% endif %}
    {{ return(found) }}
{% endmacro %}

{#- Returns the names of the tables of a schema that have a column payload. -#}
{% macro tables_of_messages(schema) %}
    {{ return(adapter.dispatch('tables_of_messages')(schema)) }}
{% endmacro %}

{% macro duckdb__tables_of_messages(schema) %}
    {{ return(run_query(
        "select table_name from information_schema.columns where table_catalog = '" ~ schema.database
        ~ "' and table_schema = '" ~ schema.schema ~ "' and column_name = 'payload' order by table_name"
    ).columns[0].values() | list) }}
{% endmacro %}

{% macro bigquery__tables_of_messages(schema) %}
    {% set found = [] %}
    {% for table in adapter.list_relations_without_caching(schema) %}
        {% if 'payload' in adapter.get_columns_in_relation(table) | map(attribute='name') | list %}
            {% do found.append(table.identifier) %}
        {% endif %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}
