{#-
  Parses a JSON body once, to a struct of the values at some paths, which `body_value(path)` reads. Values are texts; those of
  objects and lists are their JSON. Null if the body is null or not a JSON object.

  Args:
      text: SQL of the body as text
      paths: paths of fields, such as items[0].sku
      json_paths: those of the paths whose value is kept as JSON, so that a string keeps its quotes
      contract: contract of the stream, from which BigQuery also finds the fields that it does not list
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
        {# Trimming takes a tenth of the time of all the rest, so it is only done where the text does not begin or end with
           a brace. A truncated body is found here: one that fails inside TRY would make TRY repeat its whole batch row by row.
           #}
        when (starts_with({{ text }}, '{') or starts_with(ltrim({{ text }}, e' \t\r\n'), '{'))
            and (ends_with({{ text }}, '}') or ends_with(rtrim({{ text }}, e' \t\r\n'), '}'))
            and {{ duckdb_is_strict_json(text) }}
            then try(json_transform({{ text }}, '{{ tojson(duckdb_structure(steps)) }}'))
    end
{%- endmacro %}

{#- Returns the structure that json_transform reads, from a list of (steps of a path, type of its value). -#}
{% macro duckdb_structure(steps) %}
    {% set inner = {} %}
    {% for names, type in steps %}
        {% do inner.setdefault(names[0], []).append((names[1:], type)) %}
    {% endfor %}
    {% set structure = {} %}
    {% for name, rest in inner.items() %}
        {% do structure.update({name: duckdb_structure(rest) if rest[0][0] else rest[0][1]}) %}
    {% endfor %}
    {#- json_transform has one structure for all elements of a list -#}
    {% if structure and (structure | first).startswith('[') %}
        {% set elements = [] %}
        {% for names, type in steps %}
            {% do elements.append((names[1:], type)) %}
        {% endfor %}
        {{ return([duckdb_structure(elements) if elements[0][0] else elements[0][1]]) }}
    {% endif %}
    {{ return(structure) }}
{% endmacro %}

{#- Returns the steps of a path: items, [0] and sku for `items[0].sku`. -#}
{% macro steps_of(path) %}
    {{ return(modules.re.findall('[^.\\[]+|\\[[0-9]+\\]', path)) }}
{% endmacro %}

{#- The value at a path of the column `body`, made by `parse_json`. -#}
{% macro body_value(path) -%}
    {{ return(adapter.dispatch('body_value')(path)) }}
{%- endmacro %}

{% macro duckdb__body_value(path) -%}
    body
    {%- for step in steps_of(path) -%}
        {#- lists begin at 1 in DuckDB, at 0 in paths -#}
        {{ '[' ~ (step[1:-1] | int + 1) ~ ']' if step.startswith('[') else '."' ~ step ~ '"' }}
    {%- endfor -%}
{%- endmacro %}

{% macro bigquery__body_value(path) -%}
    body.`{{ bigquery_name_of(path) }}`
{%- endmacro %}

{#- A column name for the value at a path: every character that a name cannot have becomes its hexadecimal code. -#}
{% macro bigquery_name_of(path) -%}
    {%- for character in path -%}
        {{ character if modules.re.match('[A-Za-z0-9_]', character) else '_x' ~ '%x' % (character.encode() | first) ~ '_' }}
    {%- endfor -%}
{%- endmacro %}

{#-
  False for a text that DuckDB accepts as JSON, but RFC 8259 and BigQuery do not: with NaN, Infinity, or a comma after the last
  element. Three quick searches find the texts that may have one. Only for these, a slow check decides: it removes the strings
  and searches again. Anything else that is not JSON is left to json_transform.
-#}
{% macro duckdb_is_strict_json(text) -%}
    {%- set value = '-?(?i:nan|inf(inity)?)\s*[,}\]]' -%}
    case
        {# three searches: a pattern that begins with a fixed character is three times as fast #}
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
    {#- unlike DuckDB, GoogleSQL ignores a byte order mark and stops at a zero byte: texts with either are rejected -#}
    where json_type(document) = 'object' and regexp_contains(text, r'^[ \t\r\n]*\{[^\x00]*$'))
{%- endmacro %}

{#-
  The value at a path of `document`, the parsed form of `text`, as text. Numbers are written as in DuckDB, 1.5 for 1.50. The
  parsed form rounds integers beyond 64 bits and sorts the fields of objects, so these are taken from `text`.
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

{#- The value at a path of `document` as JSON text; null if it is JSON's null. -#}
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

{#- A path as JSONPath: $.items[0].sku for items[0].sku. -#}
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
  GA4's event_params as a struct of texts, one per key. GA4 sends a plain object, or a list of keys with typed values, in which
  the first entry of a key counts.

  Args:
      params: SQL of their JSON text
      keys: the keys to read
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
