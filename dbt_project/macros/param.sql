{#- A parameter of an analysis: bound when the query is asked, never pasted into its text. Call it at the top of the
    file with literals, `set brand = param('brand', 'all', 'string')`: publishing/parameters.py reads names, defaults and
    types from there. The types are string, integer, date and timestamp; a list of texts instead of a type makes a string that
    must be one of them. With the var that only .sqlfluff sets, the default stands in its place, since the linter cannot
    read a parameter. -#}
{% macro param(name, default, type) -%}
    {%- if var('lint', false) -%}
        {{ return("cast('" ~ default ~ "' as " ~ duckdb_type(type) ~ ')') }}
    {%- endif -%}
    {{ return(adapter.dispatch('param')(name, type)) }}
{%- endmacro %}

{% macro duckdb__param(name, type) -%}
    cast(${{ name }} as {{ duckdb_type(type) }})
{%- endmacro %}

{% macro bigquery__param(name, type) -%}
    @{{ name }}
{%- endmacro %}

{% macro duckdb_type(type) -%}
    {{ 'varchar' if type is not string else {
        'string': 'varchar', 'integer': 'bigint', 'date': 'date', 'timestamp': 'timestamp'
    }[type] }}
{%- endmacro %}
