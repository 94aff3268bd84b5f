{#- A cast that gives null instead of an error. -#}
{% macro try_cast_as(value, type) -%}
    {{ return(adapter.dispatch('try_cast_as')(value, type)) }}
{%- endmacro %}

{% macro duckdb__try_cast_as(value, type) -%}
    try_cast({{ value }} as {{ type }})
{%- endmacro %}

{% macro bigquery__try_cast_as(value, type) -%}
    safe_cast({{ value }} as {{ type }})
{%- endmacro %}

{#- A whole number from text; null when it is none. -#}
{% macro to_integer(text) -%}
    {{ return(adapter.dispatch('to_integer')(text)) }}
{%- endmacro %}

{#- DuckDB would round 1.5 and read 1e3. -#}
{% macro duckdb__to_integer(text) -%}
    case when regexp_full_match({{ text }}, '-?[0-9]+') then try_cast({{ text }} as bigint) end
{%- endmacro %}

{% macro bigquery__to_integer(text) -%}
    safe_cast({{ text }} as int64)
{%- endmacro %}

{#- Money and other amounts: decimal, so that sums do not depend on the order of rows. -#}
{% macro to_amount(text) -%}
    {{ try_cast_as(text, 'numeric(18, 4)') }}
{%- endmacro %}

{#- A sum of amounts, 0 when there are none. -#}
{% macro sum_of_amounts(amounts) -%}
    cast(coalesce(sum({{ amounts }}), 0) as numeric(33, 4))
{%- endmacro %}

{#- A share of two counts to four decimals; null when there is nothing to divide by. -#}
{% macro ratio(part, whole) -%}
    cast(round(({{ part }}) / nullif({{ whole }}, 0), 4) as numeric(18, 4))
{%- endmacro %}

{#- Hexadecimal MD5 of texts, each behind its length, so that no delimiter inside one can be mistaken; alike on both engines. -#}
{% macro hash_of(texts) -%}
    {%- set parts = [] -%}
    {%- for text in texts -%}
        {%- do parts.append("coalesce(cast(length(" ~ text ~ ") as " ~ dbt.type_string() ~ ") || ':' || " ~ text ~ ", 'null')") -%}
    {%- endfor -%}
    {{ md5_text(parts | join(" || ',' || ")) }}
{%- endmacro %}

{% macro md5_text(text) -%}
    {{ return(adapter.dispatch('md5_text')(text)) }}
{%- endmacro %}

{% macro duckdb__md5_text(text) -%}
    md5({{ text }})
{%- endmacro %}

{% macro bigquery__md5_text(text) -%}
    to_hex(md5({{ text }}))
{%- endmacro %}
