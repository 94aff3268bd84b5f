{#-
  The values at some paths of a JSON body, parsed once, as one struct, of which `body_value(path)` gives one. A value is
  text: an object or a list is its JSON text, and so is everything at `json_paths`, a string with its quotes. Null when
  the text is null or no JSON object.
-#}
{% macro parse_json(text, paths, json_paths=[], contract=none) -%}
    {{ return(adapter.dispatch('parse_json')(text, paths, json_paths, contract)) }}
{%- endmacro %}

{% macro duckdb__parse_json(text, paths, json_paths, contract) -%}
    {%- set steps = [] -%}
    {%- for path in paths -%}
        {%- do steps.append((steps_of(path), 'JSON' if path in json_paths else 'VARCHAR')) -%}
    {%- endfor -%}
    case
        {# to cut spaces takes a tenth as long as all else; what is cut off is told here, since one body that fails makes
           TRY go through its batch row by row #}
        when (starts_with({{ text }}, '{') or starts_with(ltrim({{ text }}, e' \t\r\n'), '{'))
            and (ends_with({{ text }}, '}') or ends_with(rtrim({{ text }}, e' \t\r\n'), '}'))
            and {{ duckdb_is_strict_json(text) }}
            then try(json_transform({{ text }}, '{{ tojson(duckdb_structure(steps)) }}'))
    end
{%- endmacro %}

{#- What json_transform makes of a body, from (steps of a path, type of its value). -#}
{% macro duckdb_structure(steps) %}
    {% set inner = {} %}
    {% for names, type in steps %}
        {% do inner.setdefault(names[0], []).append((names[1:], type)) %}
    {% endfor %}
    {% set structure = {} %}
    {% for name, rest in inner.items() %}
        {% do structure.update({name: duckdb_structure(rest) if rest[0][0] else rest[0][1]}) %}
    {% endfor %}
    {#- elements of a list have one structure, whichever is read -#}
    {% if structure and (structure | first).startswith('[') %}
        {% set elements = [] %}
        {% for names, type in steps %}
            {% do elements.append((names[1:], type)) %}
        {% endfor %}
        {{ return([duckdb_structure(elements) if elements[0][0] else elements[0][1]]) }}
    {% endif %}
    {{ return(structure) }}
{% endmacro %}

{#- `items[0].sku` as items, [0] and sku. -#}
{% macro steps_of(path) %}
    {{ return(modules.re.findall('[^.\\[]+|\\[[0-9]+\\]', path)) }}
{% endmacro %}

{#- The value at a path of `body`, which is of `parse_json`. -#}
{% macro body_value(path) -%}
    {{ return(adapter.dispatch('body_value')(path)) }}
{%- endmacro %}

{% macro duckdb__body_value(path) -%}
    body
    {%- for step in steps_of(path) -%}
        {#- DuckDB counts from 1 -#}
        {{ '[' ~ (step[1:-1] | int + 1) ~ ']' if step.startswith('[') else '."' ~ step ~ '"' }}
    {%- endfor -%}
{%- endmacro %}

{% macro bigquery__body_value(path) -%}
    body.`{{ bigquery_name_of(path) }}`
{%- endmacro %}

{#- A name for the value at a path: other characters than letters and digits as their number. -#}
{% macro bigquery_name_of(path) -%}
    {%- for character in path -%}
        {{ character if modules.re.match('[A-Za-z0-9_]', character) else '_x' ~ '%x' % (character.encode() | first) ~ '_' }}
    {%- endfor -%}
{%- endmacro %}

{#-
  DuckDB takes NaN, Infinity and a comma before the end for JSON; RFC 8259, and so BigQuery, does not. Only a text that
  may have one as a value is looked at without its strings, which takes ten times as long as all else. Whether the rest
  is JSON is for json_transform to say.
-#}
{% macro duckdb_is_strict_json(text) -%}
    {%- set value = '-?(?i:nan|inf(inity)?)\s*[,}\]]' -%}
    case
        {# one search each: a pattern that begins with a fixed character is three times as fast #}
        when regexp_matches({{ text }}, ':\s*{{ value }}')
            or regexp_matches({{ text }}, '\[\s*{{ value }}')
            or regexp_matches({{ text }}, ',\s*({{ value }}|[}\]])')
            then not regexp_matches(
                regexp_replace({{ text }}, '"(\\.|[^"\\])*"', '""', 'g'), ',\s*[}\]]|[nNiI][aAnN][nNfF]'
            )
        else true
    end
{%- endmacro %}

{% macro bigquery__parse_json(text, paths, json_paths, contract) -%}
    (select as struct
        {%- if contract %}
        {{ bigquery_unlisted_fields(contract) }} as unlisted_fields,
        {%- endif %}
        {%- for path in paths %}
        {{ bigquery_json(path) if path in json_paths else bigquery_json_text(path) }} as `{{ bigquery_name_of(path) }}`
        {{- ',' if not loop.last }}
        {%- endfor %}
    from unnest([struct(
        {{ text }} as text,
        safe.parse_json({{ text }}, wide_number_mode => 'round') as document
    )])
    {#- GoogleSQL passes over a byte order mark, and stops at a zero -#}
    where json_type(document) = 'object' and regexp_contains(text, r'^[ \t\r\n]*\{[^\x00]*$'))
{%- endmacro %}

{#-
  A value of `document`, the parsed form of `text`, as text. Numbers are as DuckDB writes them, 1.5 for 1.50; but the
  parsed form rounds integers beyond 64 bits and sorts the fields of objects: these are taken from the text.
-#}
{% macro bigquery_json_text(path) -%}
    {%- set at = "'" ~ json_path_of(path) ~ "'" -%}
    case
        when json_type(json_query(document, {{ at }})) in ('object', 'array') then json_query(text, {{ at }})
        when json_value(document, {{ at }}) like '%e+%' and regexp_contains(json_value(text, {{ at }}), r'^-?[0-9]+$')
            then json_value(text, {{ at }})
        else json_value(document, {{ at }})
    end
{%- endmacro %}

{#- A value of `document` as JSON text; null where it is JSON's null. -#}
{% macro bigquery_json(path) -%}
    {%- set at = "'" ~ json_path_of(path) ~ "'" -%}
    case json_type(json_query(document, {{ at }}))
        when 'string' then to_json_string(json_query(document, {{ at }}))
        when 'null' then null
        when 'object' then json_query(text, {{ at }})
        when 'array' then json_query(text, {{ at }})
        else {{ bigquery_json_text(path) }}
    end
{%- endmacro %}

{#- JSONPath of a path. -#}
{% macro json_path_of(path) -%}
    $
    {%- for step in steps_of(path) -%}
        {%- if step.startswith('[') -%}
            {{ step }}
        {%- else -%}
            .{{ step if modules.re.match('[A-Za-z_][A-Za-z0-9_]*$', step) else '"' ~ step ~ '"' }}
        {%- endif -%}
    {%- endfor -%}
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
