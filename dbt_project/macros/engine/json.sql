{#-
  The fields of a JSON body as one struct of texts, parsed once: `body.user_id`. A field that is itself an object
  or a list is its JSON text. Null when the payload is null, is not UTF-8, or is no JSON object.
-#}
{% macro parse_json(payload, fields) -%}
    {{ return(adapter.dispatch('parse_json')(payload, fields)) }}
{%- endmacro %}

{% macro duckdb__parse_json(payload, fields) -%}
    {%- set structure = {} -%}
    {%- for field in fields -%}{%- do structure.update({field: 'VARCHAR'}) -%}{%- endfor -%}
    case
        when starts_with(ltrim({{ utf8_text(payload) }}, e' \t\r\n'), '{') and {{ duckdb_is_strict_json(utf8_text(payload)) }}
            then json_transform({{ utf8_text(payload) }}, '{{ tojson(structure) }}')
    end
{%- endmacro %}

{#-
  DuckDB takes NaN, Infinity and a comma before the end for JSON; RFC 8259, and so BigQuery, does not. Only a text that
  may have one as a value is looked at without its strings, which takes ten times as long as all else.
-#}
{% macro duckdb_is_strict_json(text) -%}
    {%- set value = '-?(?i:nan|inf(inity)?)\s*[,}\]]' -%}
    (json_valid({{ text }}) and case
        {# one search each: a pattern that begins with a fixed character is three times as fast #}
        when regexp_matches({{ text }}, ':\s*{{ value }}')
            or regexp_matches({{ text }}, '\[\s*{{ value }}')
            or regexp_matches({{ text }}, ',\s*({{ value }}|[}\]])')
            then not regexp_matches(
                regexp_replace({{ text }}, '"(\\.|[^"\\])*"', '""', 'g'), ',\s*[}\]]|[nNiI][aAnN][nNfF]'
            )
        else true
    end)
{%- endmacro %}

{% macro bigquery__parse_json(payload, fields) -%}
    (select as struct
        {%- for field in fields %}
        {{ bigquery_json_text(field) }} as {{ adapter.quote(field) }}
        {{- ',' if not loop.last }}
        {%- endfor %}
    from unnest([struct(
        {{ utf8_text(payload) }} as text,
        safe.parse_json({{ utf8_text(payload) }}, wide_number_mode => 'round') as document
    )])
    {#- GoogleSQL passes over a byte order mark, and stops at a zero -#}
    where json_type(document) = 'object' and regexp_contains(text, r'^[ \t\r\n]*\{[^\x00]*$'))
{%- endmacro %}

{#-
  A field of `document`, the parsed form of `text`, as text. Numbers are as DuckDB writes them, 1.5 for 1.50; but the
  parsed form rounds integers beyond 64 bits and sorts the fields of objects: these are taken from the text.
-#}
{% macro bigquery_json_text(field) -%}
    case
        when json_type(json_query(document, '$.{{ field }}')) in ('object', 'array') then json_query(text, '$.{{ field }}')
        when json_value(document, '$.{{ field }}') like '%e+%' and regexp_contains(json_value(text, '$.{{ field }}'), r'^-?[0-9]+$')
            then json_value(text, '$.{{ field }}')
        else json_value(document, '$.{{ field }}')
    end
{%- endmacro %}

{#-
  GA4's event_params as one struct of texts. They come as a list of key and typed value, of which the first of a
  key counts, or as a plain object.
-#}
{% macro parse_event_params(params, keys) -%}
    {{ return(adapter.dispatch('parse_event_params')(params, keys)) }}
{%- endmacro %}

{% macro duckdb__parse_event_params(params, keys) -%}
    {%- set typed = ['string_value', 'int_value', 'double_value', 'float_value'] -%}
    {%- set value = {} -%}
    {%- for name in typed -%}{%- do value.update({name: 'VARCHAR'}) -%}{%- endfor -%}
    {%- set object = {} -%}
    {%- for key in keys -%}{%- do object.update({key: 'VARCHAR'}) -%}{%- endfor -%}
    case
        when not json_valid({{ params }}) then null
        when starts_with({{ params }}, '{') then json_transform({{ params }}, '{{ tojson(object) }}')
        when starts_with({{ params }}, '[') then
            list_transform(
                [json_transform({{ params }}, '{{ tojson([{"key": "VARCHAR", "value": value}]) }}')],
                lambda entries: {
                    {%- for key in keys %}
                    '{{ key }}': list_transform(
                        list_filter(entries, lambda entry: entry.key = '{{ key }}'),
                        lambda entry: coalesce(entry.value.{{ typed | join(', entry.value.') }})
                    )[1]
                    {{- ',' if not loop.last }}
                    {%- endfor %}
                }
            )[1]
    end
{%- endmacro %}

{% macro bigquery__parse_event_params(params, keys) -%}
    (select as struct
        {%- for key in keys %}
        case json_type(document)
            when 'object' then {{ bigquery_json_text(key) }}
            when 'array' then (
                select coalesce(
                    json_value(entry, '$.value.string_value'), json_value(entry, '$.value.int_value'),
                    json_value(entry, '$.value.double_value'), json_value(entry, '$.value.float_value')
                )
                from unnest(json_query_array(document)) as entry with offset as position
                where json_value(entry, '$.key') = '{{ key }}'
                order by position
                limit 1
            )
        end as {{ key }}
        {{- ',' if not loop.last }}
        {%- endfor %}
    from unnest([struct(
        {{ params }} as text, safe.parse_json({{ params }}, wide_number_mode => 'round') as document
    )]))
{%- endmacro %}

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
