{#- The staging of a stream of events as its contract says: one row a message, parsed once, judged and identified. -#}
{% macro staged_events(stream) %}
{%- set contract = contracts()[stream] -%}
{%- set event_type = {} if contract.event_type is string else contract.event_type -%}
{#- fields that have a column of their own -#}
{%- set columns = [] -%}
{#- field to the column that is null where the body has none -#}
{%- set texts = {} -%}
{#- what an event without an id is known by -#}
{%- set identity = [] -%}
{%- for field in contract.fields -%}
    {%- if field.path in contract.time -%}
        {%- do texts.update({field.path: 'time_text'}) -%}
        {%- do identity.append(time_text_of('event_at')) if time_text_of('event_at') not in identity -%}
    {%- elif field.path == event_type.field -%}
        {%- do texts.update({field.path: 'type_text'}) -%}
        {%- do identity.append('type_text') -%}
    {%- elif field.path == contract.id -%}
        {%- do texts.update({field.path: 'source_event_id'}) -%}
    {%- else -%}
        {%- do columns.append(field) -%}
        {%- do texts.update({field.path: field.name ~ '_text' if field.type == 'amount' else field.name}) -%}
        {%- if field.type != 'json' -%}
            {%- do identity.append(amount_text_of(field.name) if field.type == 'amount' else field.name) -%}
        {%- endif -%}
    {%- endif -%}
{%- endfor %}

with messages as (
    select
        stream, message_id, landed_at, coalesce(published_at, landed_at) as published_at, payload
        {{- ', decoded, decode_error' if contract.format != 'json' }}
    from {{ source('raw', stream) }}
    where {{ is_new() }}
),

parsed as (
    {#- what landed while the contract said json has no decoded body -#}
    select *, {{ parse_json('payload' if contract.format == 'json' else 'coalesce(decoded, payload)', fields_of(stream)) }} as body from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        payload,
        {{ 'decode_error,' if contract.format != 'json' }}
        body is null as is_malformed,
        {%- for field in columns %}
        {%- if field.type == 'amount' %}
        {{ text_of(field.path, contract.nulls) }} as {{ field.name }}_text,
        {{ to_amount(text_of(field.path, contract.nulls)) }} as {{ field.name }},
        {%- elif field.type == 'json' %}
        body.{{ adapter.quote(field.path) }} as {{ field.name }},
        {%- else %}
        {{ id_text('body.' ~ adapter.quote(field.path)) if field.type == 'id' else text_of(field.path, contract.nulls) }} as {{ field.name }},
        {%- endif %}
        {%- endfor %}
        {%- if event_type %}
        {{ text_of(event_type.field, contract.nulls) }} as type_text,
        {%- endif %}
        {{ id_text('body.' ~ adapter.quote(contract.id)) if contract.id else 'cast(null as ' ~ dbt.type_string() ~ ')' }} as source_event_id,
        {{ time_text(contract) }} as time_text,
        {{ to_timestamp(time_text(contract)) }} as event_at
    from parsed
),

judged as (
    select
        *,
        case
            {%- if contract.format != 'json' %}
            when decode_error is not null then {{ dbt.concat(["'undecodable:'", 'decode_error']) }}
            {%- endif %}
            when is_malformed then 'malformed_json'
            {%- for field in contract.fields if field.required %}
            when {{ texts[field.path] }} is null then 'missing:{{ field.path }}'
            {%- endfor %}
            when event_at is null or not {{ is_plausible('event_at') }} then 'invalid:timestamp'
            {%- if event_type %}
            when type_text not in ('{{ event_type['values'].keys() | join("', '") }}') then 'invalid:{{ event_type.field }}'
            {%- endif %}
            {%- for field in columns if field.type == 'amount' %}
            when {{ field.name }}_text is not null and {{ field.name }} is null then 'invalid:{{ field.path }}'
            {%- endfor %}
            {%- for field in contract.fields if field.type in ('string', 'id') and texts[field.path] in ['source_event_id'] + event_attributes() %}
            when length({{ texts[field.path] }}) > {{ most_characters() }} then 'too_long:{{ field.path }}'
            {%- endfor %}
        end as reject_reason
    from renamed
),

identified as (
    select
        *,
        {% if contract.id_is_required %}source_event_id{% else %}coalesce(source_event_id, {{ hash_of(identity) }}){% endif %} as event_id
    from judged
)

select
    stream,
    message_id,
    {{ event_key(contract.lines) }} as event_key,
    event_id,
    {%- if event_type %}
    {{ meaning_of('type_text', event_type['values']) }} as event_type,
    {%- endif %}
    {%- for field in columns %}
    {{ field.name }},
    {%- endfor %}
    event_at,
    cast(event_at as date) as event_date,
    published_at,
    landed_at,
    reject_reason,
    {{ reject_detail('time_text') }} as reject_detail,
    case when reject_reason is not null then payload end as rejected_payload
from identified
{% endmacro %}

{#- A field of the body as text; null where it is empty or one of the contract's values for null. -#}
{% macro text_of(path, nulls) -%}
    {%- set ns = namespace(text="nullif(body." ~ adapter.quote(path) ~ ", '')") -%}
    {%- for value in nulls -%}
        {%- set ns.text = "nullif(" ~ ns.text ~ ", '" ~ value ~ "')" -%}
    {%- endfor -%}
    {{ ns.text }}
{%- endmacro %}

{#- The first of the contract's time fields that has a value. -#}
{% macro time_text(contract) -%}
    {%- set found = [] -%}
    {%- for path in contract.time -%}
        {%- do found.append(text_of(path, contract.nulls)) -%}
    {%- endfor -%}
    {{ found[0] if found | length == 1 else 'coalesce(' ~ found | join(', ') ~ ')' }}
{%- endmacro %}

{#- The event_type of a value; of one that is not listed, the value, in the row of a dead letter. -#}
{% macro meaning_of(column, values) -%}
    {%- set renamed = [] -%}
    {%- for value, meaning in values.items() if value != meaning -%}
        {%- do renamed.append("when '" ~ value ~ "' then '" ~ meaning ~ "'") -%}
    {%- endfor -%}
    {{ 'case ' ~ column ~ ' ' ~ renamed | join(' ') ~ ' else ' ~ column ~ ' end' if renamed else column }}
{%- endmacro %}
