{#-
  A parameter of a query: a bound parameter of the SQL statement, so that a value is never part of the SQL text. Call it at
  the top of the file with literals, `set brand = param('brand', 'all', 'string')`: publishing/parameters.py reads them there.
  The linter cannot read bound parameters: with the var `lint`, which only .sqlfluff sets, the default takes its place.

  Args:
      name: name of the parameter
      default: its value when a request has none
      type: string, integer, date or timestamp; or a list of texts, one of which the value must be
-#}
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

{#- DuckDB's type for the type of a parameter. -#}
{% macro duckdb_type(type) -%}
    {{ 'varchar' if type is not string else {
        'string': 'varchar', 'integer': 'bigint', 'date': 'date', 'timestamp': 'timestamp'
    }[type] }}
{%- endmacro %}
