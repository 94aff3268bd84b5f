{#- Staging of an event stream by its contract: one row per message, parsed once, checked, with the event's identity. -#}
{% macro staged_events(stream) %}
{%- set contract = contracts()[stream] -%}
{%- set paths, json_paths = paths_of(contract) -%}
{%- set fields = own_fields(contract) -%}
{%- set of_type = {} if contract.event_type is string else contract.event_type -%}
{#- text_columns: maps the path of a field to the column that is null if the body has no value for it.
    identity: texts that together identify an event of a stream without ids. -#}
{%- set text_columns, identity = {}, [] -%}
{%- for field in contract.fields -%}
    {%- if field.path in contract.time -%}
        {%- do text_columns.update({field.path: 'time_text' if contract.time | length == 1 else 'time_text_' ~ contract.time.index(field.path)}) -%}
        {%- do identity.append(time_text_of('event_at')) if time_text_of('event_at') not in identity -%}
    {%- elif field.path == of_type.field -%}
        {%- do text_columns.update({field.path: 'type_text'}) -%}
        {%- do identity.append('type_text') -%}
    {%- elif field.path == contract.id -%}
        {%- do text_columns.update({field.path: 'source_event_id'}) -%}
    {%- else -%}
        {%- do text_columns.update({field.path: text_column(field)}) -%}
        {%- do identity.append(identity_text(field)) if field.type != 'json' -%}
    {%- endif -%}
{%- endfor %}
{%- set field_at = {} -%}
{%- for field in contract.fields -%}{%- do field_at.update({field.path: field}) -%}{%- endfor -%}
{%- set id, lines = field_at.get(contract.id), [] -%}
{%- for path in contract.lines -%}
    {%- do lines.append(time_text_of('event_at') if path in contract.time else 'type_text' if path == of_type.field else as_text(field_at[path])) -%}
{%- endfor %}

with messages as (
    select
        stream,
        message_id,
        landed_at,
        coalesce(published_at, landed_at) as published_at,
        payload,
        {%- if contract.format != 'json' %}
        decode_error,
        {%- endif %}
        {{ cloudevent('attributes', contract) if contract.envelope == 'cloudevents' else utf8_text(body_bytes(contract)) }} as body_text
    from {{ source('raw', stream) }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('body_text', paths, json_paths, contract) }} as body
    from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        payload,
        {{- ' decode_error,' if contract.format != 'json' }}
        body is null as is_malformed,
        {{ unlisted_fields('body_text', contract) }} as unlisted_fields,
        {{ texts_and_values(fields, contract) }}
        {%- if of_type %}
        {{ text_of(field_at[of_type.field], contract) }} as type_text,
        {%- endif %}
        {{ text_of(id, contract) if id else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as source_event_id,
        {%- for path in contract.time if contract.time | length > 1 %}
        {{ text_of(field_at[path], contract) }} as time_text_{{ loop.index0 }},
        {%- endfor %}
        {{ first_time(contract, field_at, values=false) }} as time_text,
        {{ first_time(contract, field_at, values=true) }} as event_at
    from parsed
),

validated as (
    select
        *,
        case
            {%- if contract.format != 'json' %}
            when decode_error is not null then 'undecodable:' || decode_error
            {%- endif %}
            when is_malformed then 'malformed_json'
            {%- for field in contract.fields if field.required %}
            when {{ text_columns[field.path] }} is null then 'missing:{{ field.path }}'
            {%- endfor %}
            {%- for group in contract.one_of %}
            when coalesce(
                {%- for path in group -%}
                cast({{ text_columns[path] }} as {{ dbt.type_string() }}){{ ', ' if not loop.last }}
                {%- endfor -%}
            ) is null then 'missing:{{ group[0] }}'
            {%- endfor %}
            when event_at is null or not {{ is_plausible('event_at') }} then 'invalid:timestamp'
            {%- if of_type and of_type.others == 'reject' %}
            when type_text not in ({{ literals(of_type['values']) }}) then 'invalid:{{ of_type.field }}'
            {%- endif %}
            {%- if of_type and field_at[of_type.field].accepted %}
            when type_text not in ({{ literals(field_at[of_type.field].accepted) }}) then 'invalid:{{ of_type.field }}'
            {%- endif %}
            {%- if id and has_text_column(id) %}
            when source_event_id is not null and {{ value_of(id, 'source_event_id') }} is null then 'invalid:{{ id.path }}'
            {%- endif %}
            {%- if id and id.accepted %}
            when source_event_id not in ({{ literals(id.accepted) }}) then 'invalid:{{ id.path }}'
            {%- endif %}
            {{ reject_invalid(fields) }}
            {%- if id %}
            when length(source_event_id) > {{ most_characters() }} then 'too_long:{{ id.path }}'
            {%- endif %}
            {%- if of_type and of_type.others == 'keep' %}
            when length(type_text) > {{ most_characters() }} then 'too_long:{{ of_type.field }}'
            {%- endif %}
            {{ reject_long(fields) }}
        end as reject_reason
    from renamed
),

identified as (
    select
        *,
        {% if contract.id_is_required %}source_event_id{% else %}coalesce(source_event_id, {{ surrogate_key(identity) }}){% endif %} as event_id
    from validated
)

select
    stream,
    message_id,
    {{ event_key(stream, lines) }} as event_key,
    event_id,
    {%- if of_type %}
    {{ meaning_of('type_text', of_type['values']) }} as event_type,
    {%- endif %}
    {{ kept_columns(fields, stream) }}
    event_at,
    cast(event_at as date) as event_date,
    published_at,
    landed_at,
    reject_reason,
    {{ reject_detail('time_text', values=checked_texts(contract, text_columns)) }} as reject_detail,
    case when reject_reason is not null then payload end as rejected_payload,
    unlisted_fields
from identified
{% endmacro %}

{#- Returns the fields that become columns of the same name: all but the time, the type and the id of the event. -#}
{% macro own_fields(contract) %}
    {% set fields = [] %}
    {% for field in contract.fields if field.path not in contract.own %}
        {% do fields.append(field) %}
    {% endfor %}
    {{ return(fields) }}
{% endmacro %}

{#-
  The first of a contract's time fields that has a text.

  Args:
      contract: contract of the stream
      field_at: maps a path to the field of the contract
      values: true for its value as a time, false for its text
-#}
{% macro first_time(contract, field_at, values) -%}
    {%- set candidates = [] -%}
    {%- for path in contract.time -%}
        {%- set text = text_of(field_at[path], contract) -%}
        {%- do candidates.append((text, value_of(dict(field_at[path], type='timestamp'), text) if values else text)) -%}
    {%- endfor -%}
    {%- if candidates | length == 1 -%}
        {{ candidates[0][1] }}
    {%- else -%}
        case {%- for text, value in candidates %} when {{ text }} is not null then {{ value }}{% endfor %} end
    {%- endif -%}
{%- endmacro %}

{#-
  The event_type for a value of the type field: as the contract maps it, else the value itself.

  Args:
      column: column of the value
      values: maps a value to the event_type
-#}
{% macro meaning_of(column, values) -%}
    {%- set renamed = [] -%}
    {%- for value, meaning in values.items() if value != meaning -%}
        {%- do renamed.append('when ' ~ text_literal(value) ~ ' then ' ~ text_literal(meaning)) -%}
    {%- endfor -%}
    {{ 'case ' ~ column ~ ' ' ~ renamed | join(' ') ~ ' else ' ~ column ~ ' end' if renamed else column }}
{%- endmacro %}

{#- A CloudEvent as one JSON document. In structured mode the body is that document. In binary mode the body is only its data,
    if it has any, and the rest is in attributes of the message: ce_id in Kafka, ce-id in Pub/Sub (CloudEvents 1.0,
    protocol bindings). -#}
{% macro cloudevent(attributes, contract) -%}
    {%- set body = utf8_text(body_bytes(contract)) -%}
    {%- set specversion = cloudevent_attribute(attributes, 'specversion') -%}
    {%- set names = ['id', 'source', 'type', 'subject', 'time'] -%}
    {%- for field in contract.fields -%}
        {%- for path in field.paths if steps_of(path)[0] not in names + ['specversion', 'data'] -%}
            {%- do names.append(steps_of(path)[0]) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- set members = [] -%}
    {%- for name in names -%}
        {%- do members.append("coalesce('\"" ~ name ~ "\":' || " ~ json_string(cloudevent_attribute(attributes, name)) ~ " || ',', '')") -%}
    {%- endfor -%}
    case
        when {{ specversion }} is null then {{ body }}
        else '{' || {{ members | join(' || ') }} || case
            when payload is null or {{ body }} = '' then ''
            -- only valid JSON is embedded: another body could close the object early
            when {{ is_json(body) }} then '"data":' || {{ body }} || ','
        end || '"specversion":' || {{ json_string(specversion) }} || '}'
    end
{%- endmacro %}

{% macro cloudevent_attribute(attributes, name) -%}
    coalesce({{ json_scalar(attributes, json_path_of('ce_' ~ name)) }}, {{ json_scalar(attributes, json_path_of('ce-' ~ name)) }})
{%- endmacro %}
