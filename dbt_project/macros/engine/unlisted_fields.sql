{#-
  The fields of a body that its contract does not list, as a JSON list of path, type and example; null if there are none.
  - Examples are masked: each letter becomes a, each digit 9, any other character beyond ASCII ?; objects are {...}, lists [...].
  - For an object that the contract does not list, its fields are listed instead, one level deep.
  - An object from which the contract reads fields is listed only if a message has another type of value there.
  - Names that are not identifiers are left out: they may be values, such as ids of persons.
-#}
{% macro unlisted_fields(text, contract) -%}
    {{ return(adapter.dispatch('unlisted_fields')(text, contract)) }}
{%- endmacro %}

{% macro duckdb__unlisted_fields(text, contract) -%}
    {%- if contract.envelope == 'debezium' -%}
        {%- set text = "coalesce(json_extract(" ~ text ~ ", '$.after'), json_extract(" ~ text ~ ", '$.payload.after'))" -%}
    {%- endif -%}
    {%- set at = "'$.\"' || replace(path, '.', '\".\"') || '\"'" -%}
    {%- set expanded = "list_transform(
            list_filter(json_keys(" ~ text ~ "), lambda name: name not in (" ~ literals(contract.listed + ['']) ~ ") and regexp_full_match(name, '" ~ identifier_pattern() ~ "')),
            lambda path: case
                when json_type(" ~ text ~ ", " ~ at ~ ") = 'OBJECT'
                    and (len(json_keys(" ~ text ~ ", " ~ at ~ ")) > 0 or path in (" ~ literals(containers_of(contract) + ['']) ~ "))
                    then list_transform(
                        list_filter(json_keys(" ~ text ~ ", " ~ at ~ "), lambda name: regexp_full_match(name, '" ~ identifier_pattern() ~ "')),
                        lambda name: path || '.' || name
                    )
                else [path]
            end
        )" -%}
    {%- set unlisted = "list_filter(flatten(" ~ expanded ~ "), lambda path: path not in (" ~ literals(contract.listed_inside + ['']) ~ ")
            and json_type(" ~ text ~ ", " ~ at ~ ") != 'NULL')" %}
    case when body is not null and {{ duckdb_has_other_names(text, contract) }} then nullif(cast(to_json(list_transform(
        list_sort(list_distinct({{ unlisted }}))[:20],
        lambda path: {
            'path': path,
            'type': case json_type({{ text }}, {{ at }})
                when 'VARCHAR' then 'string' when 'BOOLEAN' then 'boolean' when 'OBJECT' then 'object' when 'ARRAY' then 'array' else 'number'
            end,
            'example': case json_type({{ text }}, {{ at }})
                when 'OBJECT' then '{...}' when 'ARRAY' then '[...]' else {{ masked("json_extract_string(" ~ text ~ ", " ~ at ~ ")") }}
            end
        }
    )) as varchar), '[]') end
{%- endmacro %}

{#- Whether a body has a field that is not listed: a quick check, because most bodies have none. -#}
{% macro duckdb_has_other_names(text, contract) -%}
    {%- set inside = {} -%}
    {%- for path in contract.listed_inside if contract.envelope != 'debezium' -%}
        {%- do inside.setdefault(path.split('.')[0], []).append(path.split('.')[1]) -%}
    {%- endfor -%}
    (len(list_filter(json_keys({{ text }}), lambda name: not list_contains([{{ literals(contract.listed + inside.keys() | list + ['']) }}], name))) > 0
    {%- for container, names in inside.items() %}
    or len(list_filter(json_keys({{ text }}, '$."{{ container }}"'), lambda name: not list_contains([{{ literals(names) }}], name))) > 0
    {# or the value is not an object, or an empty one #}
    or len(json_keys({{ text }}, '$."{{ container }}"')) = 0
    {%- endfor -%}
    )
{%- endmacro %}

{#- `parse_json` has already found these fields in the parsed document. -#}
{% macro bigquery__unlisted_fields(text, contract) -%}
    body.unlisted_fields
{%- endmacro %}

{% macro bigquery_unlisted_fields(contract) -%}
    {%- set document = 'document' -%}
    {%- if contract.envelope == 'debezium' -%}
        {%- set document = "coalesce(json_query(document, '$.after'), json_query(document, '$.payload.after'))" -%}
    {%- endif -%}
    (
        select nullif(to_json_string(array_agg(struct(
            path,
            json_type(value) as type,
            case json_type(value)
                when 'object' then '{...}' when 'array' then '[...]' else {{ masked('json_value(value)') }}
            end as example
        ) order by path limit 20)), 'null')
        from unnest([struct({{ document }} as row)])
        cross join unnest(json_keys(row, 2)) as path
        cross join unnest([if(strpos(path, '.') > 0, row[split(path, '.')[safe_offset(0)]][split(path, '.')[safe_offset(1)]], row[path])]) as value
        where split(path, '.')[safe_offset(0)] not in ({{ literals(contract.listed + ['']) }})
            and path not in ({{ literals(contract.listed_inside + ['']) }})
            and regexp_contains(path, r'^{{ identifier_pattern() }}([.]{{ identifier_pattern() }})?$')
            and json_type(value) != 'null'
            {#- an object is not listed itself if its fields are, or if the contract reads some of them -#}
            and not (strpos(path, '.') = 0 and json_type(value) = 'object'
                and (array_length(json_keys(value, 1)) > 0 or path in ({{ literals(containers_of(contract) + ['']) }})))
    )
{%- endmacro %}

{#- Returns the names of the objects from which a contract reads fields. -#}
{% macro containers_of(contract) %}
    {% set names = {} %}
    {% for path in contract.listed_inside %}
        {% do names.update({path.split('.')[0]: true}) %}
    {% endfor %}
    {{ return(names | list) }}
{% endmacro %}

{% macro identifier_pattern() -%}
    [A-Za-z_][A-Za-z0-9_:$-]{0,62}
{%- endmacro %}

{#- The first 40 characters of a text, masked. -#}
{% macro masked(text) -%}
    {{ return(adapter.dispatch('masked')(text)) }}
{%- endmacro %}

{% macro duckdb__masked(text) -%}
    regexp_replace(regexp_replace(regexp_replace(substr({{ text }}, 1, 40), '\p{L}', 'a', 'g'), '\p{N}', '9', 'g'), '[^ -~]', '?', 'g')
{%- endmacro %}

{% macro bigquery__masked(text) -%}
    regexp_replace(regexp_replace(regexp_replace(substr({{ text }}, 1, 40), r'\p{L}', 'a'), r'\p{N}', '9'), r'[^ -~]', '?')
{%- endmacro %}
