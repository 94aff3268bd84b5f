{#- Text of bytes without those that are not UTF-8. -#}
{% macro lossy_text(bytes) -%}
    {{ return(adapter.dispatch('lossy_text')(bytes)) }}
{%- endmacro %}

{% macro duckdb__lossy_text(bytes) -%}
    decode({{ bytes }}, 'ignore')
{%- endmacro %}

{% macro bigquery__lossy_text(bytes) -%}
    coalesce(safe_cast({{ bytes }} as string), replace(safe_convert_bytes_to_string({{ bytes }}), '\ufffd', ''))
{%- endmacro %}

{#- Text of bytes, null when they are not UTF-8. -#}
{% macro utf8_text(bytes) -%}
    {{ return(adapter.dispatch('utf8_text')(bytes)) }}
{%- endmacro %}

{% macro duckdb__utf8_text(bytes) -%}
    {#- not try(decode(...)): where one fails, TRY goes through its whole batch row by row, ten times slower -#}
    case
        when octet_length(encode(decode({{ bytes }}, 'ignore'))) = octet_length({{ bytes }}) then decode({{ bytes }}, 'ignore')
    end
{%- endmacro %}

{% macro bigquery__utf8_text(bytes) -%}
    safe_cast({{ bytes }} as string)
{%- endmacro %}

{#- The scalar at a path of a JSON text, as text; null where there is none, or the text is no JSON. -#}
{% macro json_scalar(text, path) -%}
    {{ return(adapter.dispatch('json_scalar')(text, path)) }}
{%- endmacro %}

{#- json_value keeps the quotes of a string, and json_extract_string takes objects too. -#}
{% macro duckdb__json_scalar(text, path) -%}
    case
        when not json_valid({{ text }}) then null
        when json_value({{ text }}, '{{ path }}') is not null then json_extract_string({{ text }}, '{{ path }}')
    end
{%- endmacro %}

{% macro bigquery__json_scalar(text, path) -%}
    json_value({{ text }}, '{{ path }}')
{%- endmacro %}

{#- Bytes for people to read: as text, or in hexadecimal where they are none. -#}
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

{#- A JSON object from name to SQL, and from name to the contract's type of its value. -#}
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

{#- One row for each property of the events of a relation: property, its name, and value, as text, beside the columns of the
    relation. Null is a value, too; an object is {...} and a list [...], since their text is not alike on both engines. -#}
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

{#- A text as a JSON string. -#}
{% macro json_string(text) -%}
    {{ return(adapter.dispatch('json_string')(text)) }}
{%- endmacro %}

{% macro duckdb__json_string(text) -%}
    cast(to_json({{ text }}) as varchar)
{%- endmacro %}

{#- TO_JSON_STRING writes null for a null -#}
{% macro bigquery__json_string(text) -%}
    case when {{ text }} is not null then to_json_string({{ text }}) end
{%- endmacro %}

{#- Whether a text is a JSON document. -#}
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

{#- One row for each of the unlisted fields in `unlisted_fields`: path, type and example, beside the columns of a relation. -#}
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
