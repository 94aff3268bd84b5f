{#- Bytes as text; null if they are not UTF-8. -#}
{% macro utf8_text(bytes) -%}
    {{ return(adapter.dispatch('utf8_text')(bytes)) }}
{%- endmacro %}

{% macro duckdb__utf8_text(bytes) -%}
    {#- not try(decode(...)): if one value fails, TRY repeats its whole batch row by row, ten times slower -#}
    case
        when octet_length(encode(decode({{ bytes }}, 'ignore'))) = octet_length({{ bytes }}) then decode({{ bytes }}, 'ignore')
    end
{%- endmacro %}

{% macro bigquery__utf8_text(bytes) -%}
    safe_cast({{ bytes }} as string)
{%- endmacro %}

{#- The scalar at a JSONPath of a text, as text; null if there is none, or the text is not JSON. -#}
{% macro json_scalar(text, path) -%}
    {{ return(adapter.dispatch('json_scalar')(text, path)) }}
{%- endmacro %}

{#- Neither function suffices alone: json_value keeps the quotes of a string, json_extract_string returns objects too. -#}
{% macro duckdb__json_scalar(text, path) -%}
    case
        when not json_valid({{ text }}) then null
        when json_value({{ text }}, '{{ path }}') is not null then json_extract_string({{ text }}, '{{ path }}')
    end
{%- endmacro %}

{% macro bigquery__json_scalar(text, path) -%}
    json_value({{ text }}, '{{ path }}')
{%- endmacro %}

{#- Bytes for people to read: as text, or in hexadecimal if they are not readable text. -#}
{% macro readable_bytes(bytes) -%}
    case
        when {{ has_control_characters(utf8_text(bytes)) }} or {{ utf8_text(bytes) }} is null then {{ hex_text(bytes) }}
        else {{ utf8_text(bytes) }}
    end
{%- endmacro %}

{% macro hex_text(bytes) -%}
    {{ return(adapter.dispatch('hex_text')(bytes)) }}
{%- endmacro %}

{% macro duckdb__hex_text(bytes) -%}
    lower(hex({{ bytes }}))
{%- endmacro %}

{% macro bigquery__hex_text(bytes) -%}
    to_hex({{ bytes }})
{%- endmacro %}

{#-
  A JSON object.

  Args:
      values: maps the name of a field to the SQL of its value
      types: maps the name of a field to its type in the contract
-#}
{% macro json_object(values, types) -%}
    {{ return(adapter.dispatch('json_object')(values, types)) }}
{%- endmacro %}

{% macro duckdb__json_object(values, types) -%}
    json_object(
        {%- for name, value in values.items() -%}
        '{{ name }}', {{ 'cast(' ~ amount_text(value) ~ ' as json)' if types[name] == 'amount' else value }}
        {{- ', ' if not loop.last }}
        {%- endfor -%}
    )
{%- endmacro %}

{% macro bigquery__json_object(values, types) -%}
    json_object(
        {%- for name, value in values.items() -%}
        '{{ name }}',
        {%- if types[name] in ('amount', 'json') %} parse_json({{ amount_text(value) if types[name] == 'amount' else value }}, wide_number_mode => 'round')
        {%- else %} {{ value }}
        {%- endif %}
        {{- ', ' if not loop.last }}
        {%- endfor -%}
    )
{%- endmacro %}

{#- Selects one row per event of a relation and field of its `properties`: the columns of the relation, the field's name as
    `property`, and its `value` as text or null. Objects are {...} and lists [...], because the engines write them
    differently. -#}
{% macro each_property(relation) -%}
    {{ return(adapter.dispatch('each_property')(relation)) }}
{%- endmacro %}

{% macro duckdb__each_property(relation) -%}
    {%- set at = "'$.\"' || property || '\"'" -%}
    select
        events.*,
        property,
        case json_type(events.properties, {{ at }})
            when 'OBJECT' then '{...}' when 'ARRAY' then '[...]' else json_extract_string(events.properties, {{ at }})
        end as value
    from {{ relation }} as events
    cross join unnest(json_keys(events.properties)) as names (property)
{%- endmacro %}

{% macro bigquery__each_property(relation) -%}
    select
        events.*,
        property,
        case json_type(events.properties[property])
            when 'object' then '{...}' when 'array' then '[...]' else json_value(events.properties[property])
        end as value
    from {{ relation }} as events
    cross join unnest(json_keys(events.properties, 1)) as property
{%- endmacro %}

{#- A text as a JSON string, in quotes. -#}
{% macro json_string(text) -%}
    {{ return(adapter.dispatch('json_string')(text)) }}
{%- endmacro %}

{% macro duckdb__json_string(text) -%}
    cast(to_json({{ text }}) as varchar)
{%- endmacro %}

{#- TO_JSON_STRING of a null is the text 'null'. -#}
{% macro bigquery__json_string(text) -%}
    case when {{ text }} is not null then to_json_string({{ text }}) end
{%- endmacro %}

{#- Whether a text is valid JSON. -#}
{% macro is_json(text) -%}
    {{ return(adapter.dispatch('is_json')(text)) }}
{%- endmacro %}

{% macro duckdb__is_json(text) -%}
    json_valid({{ text }})
{%- endmacro %}

{% macro bigquery__is_json(text) -%}
    safe.parse_json({{ text }}, wide_number_mode => 'round') is not null
{%- endmacro %}

{#- A column of type JSON as text. -#}
{% macro json_text(json) -%}
    {{ return(adapter.dispatch('json_text')(json)) }}
{%- endmacro %}

{% macro duckdb__json_text(json) -%}
    cast({{ json }} as varchar)
{%- endmacro %}

{% macro bigquery__json_text(json) -%}
    to_json_string({{ json }})
{%- endmacro %}

{#- Selects one row per message of a relation and field in its `unlisted_fields`: the columns of the relation, and path, type
    and example of the field. -#}
{% macro each_unlisted_field(relation) -%}
    {{ return(adapter.dispatch('each_unlisted_field')(relation)) }}
{%- endmacro %}

{% macro duckdb__each_unlisted_field(relation) -%}
    select messages.*, field.path, field.type, field.example
    from {{ relation }} as messages
    cross join unnest(from_json(messages.unlisted_fields, '[{"path":"VARCHAR","type":"VARCHAR","example":"VARCHAR"}]')) as fields (field)
{%- endmacro %}

{% macro bigquery__each_unlisted_field(relation) -%}
    select messages.*, json_value(field, '$.path') as path, json_value(field, '$.type') as type, json_value(field, '$.example') as example
    from {{ relation }} as messages
    cross join unnest(json_query_array(messages.unlisted_fields)) as field
{%- endmacro %}
