{#- How staging reads the fields of a contract: their texts, their values, and the reasons to reject a message. -#}

{#- A field's text, from the first of its paths that has a value. Null if it is empty or a text that the contract lists as
    null. -#}
{% macro text_of(field, contract) -%}
    {%- set found = [] -%}
    {%- for path in field.paths -%}
        {%- set value = row_value(path, contract) -%}
        {%- set is_null = is_no_value(value) if field.type == 'id' else value ~ " = ''" -%}
        {%- set nulls = contract.nulls + field.nulls -%}
        {%- if field.type == 'json' -%}
            {%- do found.append(value) -%}
        {%- elif nulls -%}
            {%- do found.append('case when not ' ~ is_null ~ ' and ' ~ value ~ ' not in (' ~ literals(nulls) ~ ') then ' ~ value ~ ' end') -%}
        {%- else -%}
            {%- do found.append(id_text(value) if field.type == 'id' else "nullif(" ~ value ~ ", '')") -%}
        {%- endif -%}
    {%- endfor -%}
    {{ found[0] if found | length == 1 else 'coalesce(' ~ found | join(', ') ~ ')' }}
{%- endmacro %}

{#- The body of a message. Avro and other formats are decoded by landing; messages that landed while the contract's format was
    json have no decoded body. -#}
{% macro body_bytes(contract) -%}
    {{ 'payload' if contract.format == 'json' else 'coalesce(decoded, payload)' }}
{%- endmacro %}

{#- The value at a path of the body. In a Debezium change it is the value in the row after the change, or for a deletion in the
    row before it. -#}
{% macro row_value(path, contract) -%}
    {%- if contract.envelope == 'debezium' -%}
        case when {{ change_value('op') }} = 'd' then {{ change_value('before.' ~ path) }} else {{ change_value('after.' ~ path) }} end
    {%- else -%}
        {{ body_value(path) }}
    {%- endif -%}
{%- endmacro %}

{#- A value of Debezium's envelope, which is under `payload` in messages with a schema. -#}
{% macro change_value(path) -%}
    coalesce({{ body_value(path) }}, {{ body_value('payload.' ~ path) }})
{%- endmacro %}

{#- Returns the paths of a body that a contract reads, and those of them whose value is kept as JSON. -#}
{% macro paths_of(contract) %}
    {% set paths, json_paths = [], [] %}
    {% for field in contract.fields %}
        {% for path in field.paths %}
            {% set found = [path] %}
            {% if contract.envelope == 'debezium' %}
                {% set found = ['after.' ~ path, 'before.' ~ path, 'payload.after.' ~ path, 'payload.before.' ~ path] %}
            {% endif %}
            {% do paths.extend(found) %}
            {% do json_paths.extend(found) if field.type == 'json' %}
        {% endfor %}
    {% endfor %}
    {% for inner in ['op', 'ts_ms', 'source.ts_ms'] if contract.envelope == 'debezium' %}
        {% do paths.extend([inner, 'payload.' ~ inner]) %}
    {% endfor %}
    {{ return((paths, json_paths)) }}
{% endmacro %}

{#- A field's text as a value of its type; null if it does not fit. -#}
{% macro value_of(field, text) -%}
    {%- if field.type == 'integer' -%}{{ to_integer(text) }}
    {%- elif field.type == 'amount' -%}{{ to_amount(text) }}
    {%- elif field.type == 'boolean' -%}{{ to_boolean(text) }}
    {%- elif field.type != 'timestamp' -%}{{ text }}
    {%- elif field.unit -%}
        {{ epoch_to_timestamp(text, {'seconds': 1, 'milliseconds': 1000, 'microseconds': 1000000}[field.unit]) }}
    {%- elif field.format -%}{{ formatted_to_timestamp(text, field.format) }}
    {%- else -%}{{ to_timestamp(text) }}
    {%- endif -%}
{%- endmacro %}

{#- Whether staging keeps a field's text next to its value, to distinguish a value that does not fit from a missing one. -#}
{% macro has_text_column(field) %}
    {{ return(field.type in ('integer', 'amount', 'boolean', 'timestamp')) }}
{% endmacro %}

{#- The column with the text of a field. Contracts cannot have fields with such a name. -#}
{% macro text_column(field) -%}
    {{ ('_text_of_' ~ field.name) if has_text_column(field) else field.name }}
{%- endmacro %}

{#- The columns of each field: `text as _text_of_price, value as price,`, or for a text only `text as url,`. -#}
{% macro texts_and_values(fields, contract) -%}
    {%- for field in fields -%}
    {%- if has_text_column(field) -%}
        {{ text_of(field, contract) }} as {{ text_column(field) }},
        {{ value_of(field, text_of(field, contract)) }} as {{ field.name }},
        {%- else -%}
        {{ text_of(field, contract) }} as {{ field.name }},
        {%- endif %}
        {% endfor -%}
{%- endmacro %}

{#- The columns of staging: all fields but those that the contract drops, and hashes of those that it hashes. JSON of entities
    becomes text. -#}
{% macro kept_columns(fields, stream) -%}
    {%- for field in fields if field.personal != 'drop' -%}
    {%- if field.personal == 'hash' -%}
    {{ pseudonym(field.name) }} as {{ field.name }},
    {% elif field.type == 'json' and contracts()[stream].kind == 'entity' -%}
    {{ as_text(field) }} as {{ field.name }},
    {% else -%}
    {{ field.name }},
    {% endif -%}
    {%- endfor -%}
{%- endmacro %}

{#- `when ... then 'invalid:price'` for a value that does not fit the field's type or is not one of its accepted values. -#}
{% macro reject_invalid(fields) -%}
    {%- for field in fields -%}
    {%- if has_text_column(field) -%}
    when {{ text_column(field) }} is not null and {{ is_invalid(field) }} then 'invalid:{{ field.path }}'
            {% endif -%}
    {%- if field.accepted -%}
    when {{ as_text(field) }} not in ({{ literals(field.accepted) }}) then 'invalid:{{ field.path }}'
            {% endif -%}
    {%- endfor -%}
{%- endmacro %}

{#- Returns a mapping for reject_detail: the path of each field whose value can be invalid, to the field's text. Personal
    fields are left out: their values stay in the payload. -#}
{% macro checked_texts(contract, texts) %}
    {% set type_field = contract.event_type.field if contract.event_type is mapping %}
    {% set checked = {} %}
    {% for field in contract.fields if field.path in texts and field.path not in contract.time and not field.personal %}
        {% if has_text_column(field) or field.accepted or field.path == type_field %}
            {% do checked.update({field.path: texts[field.path]}) %}
        {% endif %}
    {% endfor %}
    {{ return(checked) }}
{% endmacro %}

{#- Whether a field's value does not fit its type. Times must be in the years 1 to 9998: 9999 means "until now" in histories. -#}
{% macro is_invalid(field) -%}
    {%- if field.type == 'timestamp' -%}
    coalesce({{ field.name }} not between timestamp '0001-01-01' and timestamp '9998-12-31 23:59:59.999999', true)
    {%- else -%}
    {{ field.name }} is null
    {%- endif -%}
{%- endmacro %}

{#- `when ... then 'too_long:url'` for a text that staging keeps and that is too long. -#}
{% macro reject_long(fields) -%}
    {%- for field in fields if field.type in ('string', 'id', 'json') and field.personal != 'drop' -%}
    when length({{ 'cast(' ~ field.name ~ ' as ' ~ dbt.type_string() ~ ')' if field.type == 'json' else field.name }}) > {{ most_characters() }} then 'too_long:{{ field.path }}'
            {% endfor -%}
{%- endmacro %}

{#- A field's value as text that is the same on both engines. -#}
{% macro as_text(field) -%}
    {%- if field.type == 'timestamp' -%}{{ time_text_of(field.name) }}
    {%- elif field.type == 'amount' -%}{{ amount_text_of(field.name) }}
    {%- elif field.type in ('integer', 'json') -%}cast({{ field.name }} as {{ dbt.type_string() }})
    {%- elif field.type == 'boolean' -%}case when {{ field.name }} then 'true' when not {{ field.name }} then 'false' end
    {%- else -%}{{ field.name }}
    {%- endif -%}
{%- endmacro %}

{#- A field's value as text for the hash of an identity, which is published. A personal value is hashed with the secret key
    first: a plain hash of a field with few possible values can be reversed by trying them. -#}
{% macro identity_text(field) -%}
    {{ pseudonym(as_text(field)) if field.personal else as_text(field) }}
{%- endmacro %}

{#- The fields of an event that have no column in fct_events, as one JSON object. -#}
{% macro properties_of(stream) -%}
    {%- set values, types = {}, {} -%}
    {%- for field in own_fields(contracts()[stream]) if field.personal != 'drop' and field.name not in event_attributes() -%}
        {%- do values.update({field.name: iso_text(field.name) if field.type == 'timestamp' else field.name}) -%}
        {%- do types.update({field.name: field.type}) -%}
    {%- endfor -%}
    {{ json_object(values, types) if values else 'null' }}
{%- endmacro %}

{#- A list of texts as SQL literals. -#}
{% macro literals(texts) -%}
    {%- for text in texts -%}
    {{ text_literal(text) }}{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
