{#- What all staging models share. -#}

{#- Whether a time is plausible: not before var earliest_event_at, and at most a day after published_at. Producers to Kafka
    can set published_at to any time, so the year 9999, which means "until now" in histories, is excluded too. -#}
{% macro is_plausible(time) -%}
    (
        {{ time }} >= timestamp '{{ var("earliest_event_at") }}' and {{ time }} < timestamp '9999-01-01'
        and {{ time }} <= published_at + interval 1 day
    )
{%- endmacro %}

{#- A text as an id; null if it is what programs write for a missing id. As an id, such a text would make one person of all
    visitors who are not signed in. -#}
{% macro id_text(text) -%}
    case when not {{ is_no_value(text) }} then {{ text }} end
{%- endmacro %}

{#- Maximum characters of a text that staging keeps: a longer one would slow every join that carries it. -#}
{% macro most_characters() -%}
    65536
{%- endmacro %}

{#-
  `when ... then 'too_long:url'` for the first of these columns that is too long.

  Args:
      columns: names of columns; [column, field] for a column that is named otherwise than its field
-#}
{% macro reject_long_texts(columns) -%}
    {%- for column in columns -%}
    {%- set name, field = (column, column) if column is string else column -%}
    when length({{ name }}) > {{ most_characters() }} then 'too_long:{{ field }}'
            {% endfor -%}
{%- endmacro %}

{#-
  Identity of an event; null if it is rejected. It includes the UTC date, so that copies are only looked for in the partition
  of that date: a copy has the same time as its original.

  Args:
      stream: name of the stream
      parts: texts that distinguish events with the same event_id, such as the lines of an order
-#}
{% macro event_key(stream, parts=[]) -%}
    case when reject_reason is null then {{ surrogate_key(
        [text_literal(stream), 'event_id', 'cast(cast(event_at as date) as ' ~ dbt.type_string() ~ ')'] + parts
    ) }} end
{%- endmacro %}

{#- Identity of a version of an entity; null if it is rejected. It includes the contents, so that two versions with the same
    time and different contents are both kept. -#}
{% macro version_key(stream, id, contents) -%}
    case when reject_reason is null then {{ surrogate_key([
        text_literal(stream), id, time_text_of('updated_at'), "case when is_tombstone then 'tombstone' else 'version' end",
        time_text_of('created_at'), time_text_of('deleted_at')
    ] + contents) }} end
{%- endmacro %}

{#- A time as text for hashes, the same on both engines; `amount_text_of` does this for an amount. -#}
{% macro time_text_of(time) -%}
    cast({{ epoch_microseconds(time) }} as {{ dbt.type_string() }})
{%- endmacro %}

{% macro amount_text_of(amount) -%}
    cast(cast(cast({{ amount }} as numeric(33, 4)) * 10000 as bigint) as {{ dbt.type_string() }})
{%- endmacro %}

{#- The id in the text of a message key: the id itself, a JSON string, an object with the id, or one of these in Kafka
    Connect's envelope. Null if the key is something else, such as a binary number. -#}
{% macro key_id(text, path) -%}
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
  Details of the reason for which a message is rejected.

  Args:
      time_text: column with the text of the message's time
      key: column of the message key, from which the ids of tombstones are read; none for events
      values: maps the path of each field whose value can be invalid to the field's text
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
