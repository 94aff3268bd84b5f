{#- What all staging models share. -#}

{#- Whether a time can be that of a message published then: not before var earliest_event_at, at most a day ahead.
    Kafka's producers set published_at freely: nothing is of the year 9999, which stands for "until now" in histories. -#}
{% macro is_plausible(time) -%}
    (
        {{ time }} >= timestamp '{{ var("earliest_event_at") }}' and {{ time }} < timestamp '9999-01-01'
        and {{ time }} <= published_at + interval 1 day
    )
{%- endmacro %}

{#- An id from text. What programs write when they have none is null: as an id it would make one person of all visitors
    who are not signed in. -#}
{% macro id_text(text) -%}
    case when not {{ is_no_value(text) }} then {{ text }} end
{%- endmacro %}

{#- The most characters that a text of an event may have: one of megabytes would be carried through every join. -#}
{% macro most_characters() -%}
    65536
{%- endmacro %}

{#- `when ... then 'too_long:url'` for the first of these columns that is too long; a column that has another name in the
    body is given as [column, field]. -#}
{% macro reject_long_texts(columns) -%}
    {%- for column in columns -%}
    {%- set name, field = (column, column) if column is string else column -%}
    when length({{ name }}) > {{ most_characters() }} then 'too_long:{{ field }}'
            {% endfor -%}
{%- endmacro %}

{#- Identity of an event. Deduplication prunes by the date: a copy carries the same time as its original. `parts` are
    columns that tell the events of one event_id apart, such as the lines of an order. -#}
{% macro event_key(stream, parts=[]) -%}
    case when reject_reason is null then {{ surrogate_key(
        [text_literal(stream), 'event_id', 'cast(cast(event_at as date) as ' ~ dbt.type_string() ~ ')'] + parts
    ) }} end
{%- endmacro %}

{#- Identity of a version of an entity: two versions of one time with other contents are two, and neither is lost. -#}
{% macro version_key(stream, id, contents) -%}
    case when reject_reason is null then {{ surrogate_key([
        text_literal(stream), id, time_text_of('updated_at'), "case when is_tombstone then 'tombstone' else 'version' end",
        time_text_of('created_at'), time_text_of('deleted_at')
    ] + contents) }} end
{%- endmacro %}

{#- A time and an amount as text that is alike on both engines, for hashes. -#}
{% macro time_text_of(time) -%}
    cast({{ epoch_microseconds(time) }} as {{ dbt.type_string() }})
{%- endmacro %}

{% macro amount_text_of(amount) -%}
    cast(cast(cast({{ amount }} as numeric(33, 4)) * 10000 as bigint) as {{ dbt.type_string() }})
{%- endmacro %}

{#- The id in a message key: the bare id, a JSON string, an object that has the id, or one of these in Kafka Connect's
    envelope. Null when the key is something else, such as a binary number. -#}
{% macro key_id(path) -%}
    {%- set text = utf8_text('key') -%}
    {%- set scalars = [] -%}
    {%- for json_path in ('$', json_path_of(path), '$.payload', json_path_of('payload.' ~ path)) -%}
        {%- do scalars.append(json_scalar(text, json_path)) -%}
    {%- endfor -%}
    case
        when {{ has_control_characters(text) }} then null
        when starts_with({{ text }}, '{') or starts_with({{ text }}, '"') then {{ id_text('coalesce(' ~ scalars | join(', ') ~ ')') }}
        else {{ id_text(text) }}
    end
{%- endmacro %}

{#-
  Says more of a rejected message than its reason does.

  Args:
      time_text: text of the message's time
      key: of entities the message key, which tombstones are read from
      values: path to the text of a field whose value can be invalid
-#}
{% macro reject_detail(time_text, key=none, values={}) -%}
    case
        when reject_reason is null then null
        when reject_reason = 'malformed_json' then case
            when payload is null then 'no payload'
            when {{ utf8_text('payload') }} is null then 'not UTF-8'
            else 'not a JSON object'
        end
        when reject_reason = 'invalid:timestamp' then {{ time_text }}
        {%- if key %}
        when reject_reason = 'invalid:key' then {{ readable_bytes(key) }}
        {%- endif %}
        {%- for path, text in values.items() %}
        when reject_reason = 'invalid:{{ path }}' then {{ text }}
        {%- endfor %}
    end
{%- endmacro %}
