{#- What the fields of a contract are in staging: their texts, their values, and why a message is rejected. -#}

{#- A field's text; null where it is empty or one of the values for null. Of several paths the first with a value. -#}
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

{#- The body of a message: what landing decoded. What landed while the contract said json has no decoded body. -#}
{% macro body_bytes(contract) -%}
    {{ 'payload' if contract.format == 'json' else 'coalesce(decoded, payload)' }}
{%- endmacro %}

{#- The value at a path of the body; of a change of Debezium's, of the row as it is now, or was when it was deleted. -#}
{% macro row_value(path, contract) -%}
    {%- if contract.envelope == 'debezium' -%}
        case when {{ change_value('op') }} = 'd' then {{ change_value('before.' ~ path) }} else {{ change_value('after.' ~ path) }} end
    {%- else -%}
        {{ body_value(path) }}
    {%- endif -%}
{%- endmacro %}

{#- A value of Debezium's envelope, which stands under payload where the message has a schema. -#}
{% macro change_value(path) -%}
    coalesce({{ body_value(path) }}, {{ body_value('payload.' ~ path) }})
{%- endmacro %}

{#- The paths that are read of a body, and those of them whose value is kept as JSON. -#}
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

{#- A field's text as a value of its type; null where it is none. -#}
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

{#- Whether a field has a text beside its value, to tell a wrong value from none. -#}
{% macro has_text_column(field) %}
    {{ return(field.type in ('integer', 'amount', 'boolean', 'timestamp')) }}
{% endmacro %}

{#- The column of the text of a field that has a column of its value, too; no field can have this name. -#}
{% macro text_column(field) -%}
    {{ ('_text_of_' ~ field.name) if has_text_column(field) else field.name }}
{%- endmacro %}

{#- `text as _text_of_price, value as price,` of each field. -#}
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

{#- The columns of staging: all but what is dropped, and a hash where the contract asks for one. Marts of entities have
    JSON as text. -#}
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

{#- `when ... then 'invalid:price'` for a value that is none of the field's type, or none of its values. -#}
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

{#- Path to text of the fields whose values can be invalid. A personal value stays in the payload alone. -#}
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

{#- No engine has times before the year 1; 9999 stands for "until now". -#}
{% macro is_invalid(field) -%}
    {%- if field.type == 'timestamp' -%}
    coalesce({{ field.name }} not between timestamp '0001-01-01' and timestamp '9998-12-31 23:59:59.999999', true)
    {%- else -%}
    {{ field.name }} is null
    {%- endif -%}
{%- endmacro %}

{#- `when ... then 'too_long:url'` for a text that is carried on and too long. -#}
{% macro reject_long(fields) -%}
    {%- for field in fields if field.type in ('string', 'id', 'json') and field.personal != 'drop' -%}
    when length({{ 'cast(' ~ field.name ~ ' as ' ~ dbt.type_string() ~ ')' if field.type == 'json' else field.name }}) > {{ most_characters() }} then 'too_long:{{ field.path }}'
            {% endfor -%}
{%- endmacro %}

{#- A field's value as text that is alike on both engines. -#}
{% macro as_text(field) -%}
    {%- if field.type == 'timestamp' -%}{{ time_text_of(field.name) }}
    {%- elif field.type == 'amount' -%}{{ amount_text_of(field.name) }}
    {%- elif field.type in ('integer', 'json') -%}cast({{ field.name }} as {{ dbt.type_string() }})
    {%- elif field.type == 'boolean' -%}case when {{ field.name }} then 'true' when not {{ field.name }} then 'false' end
    {%- else -%}{{ field.name }}
    {%- endif -%}
{%- endmacro %}

{#- A field's value as it counts in an identity, which is published: of a personal one its keyed hash, since a plain hash
    of few possible values tells which it was. -#}
{% macro identity_text(field) -%}
    {{ pseudonym(as_text(field)) if field.personal else as_text(field) }}
{%- endmacro %}

{#- The fields of an event that no column of fct_events has, as one JSON object. -#}
{% macro properties_of(stream) -%}
    {%- set values, types = {}, {} -%}
    {%- for field in own_fields(contracts()[stream]) if field.personal != 'drop' and field.name not in event_attributes() -%}
        {%- do values.update({field.name: iso_text(field.name) if field.type == 'timestamp' else field.name}) -%}
        {%- do types.update({field.name: field.type}) -%}
    {%- endfor -%}
    {{ json_object(values, types) if values else 'null' }}
{%- endmacro %}

{#- Texts of a contract as literals. -#}
{% macro literals(texts) -%}
    {%- for text in texts -%}
    {{ text_literal(text) }}{{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
