{#- A parameter of an analysis: bound when the question is asked, never pasted into its text. Call it at the top of the
    file with literals, `set brand = param('brand', 'all', 'string')`: serve/questions.py reads names, defaults and types
    from there. The types are string, integer, date and timestamp. -#}
{% macro param(name, default, type) -%}
    {{ return(adapter.dispatch('param')(name, type)) }}
{%- endmacro %}

{% macro duckdb__param(name, type) -%}
    cast(${{ name }} as {{ {'string': 'varchar', 'integer': 'bigint', 'date': 'date', 'timestamp': 'timestamp'}[type] }})
{%- endmacro %}

{% macro bigquery__param(name, type) -%}
    @{{ name }}
{%- endmacro %}
