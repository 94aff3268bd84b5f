-- One row a message, parsed once. The bodies come from a CSV: 'null' and '' are NULL. The producer is
-- at-least-once and gives no id, so an event is known by all nine fields.
{{ config(meta={'settings': ['earliest_event_at']}) }}

{%- set fields = fields_of('ecom_events') %}
{%- set ids = ['product_id', 'category_id', 'user_id', 'user_session'] %}

with messages as (
    select stream, message_id, landed_at, coalesce(published_at, landed_at) as published_at, payload
    from {{ source('raw', 'ecom_events') }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('payload', fields) }} as body from messages
),

cleaned as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        payload,
        body is null as is_malformed
        {%- for field in fields %},
        {{ id_text('body.' ~ field) if field in ids else "nullif(nullif(body." ~ field ~ ", ''), 'null')" }}
            as {{ field }}
        {%- endfor %}
    from parsed
),

typed as (
    select
        *,
        {{ to_timestamp('event_time') }} as event_at,
        {{ to_amount('price') }} as amount
    from cleaned
),

judged as (
    select
        *,
        case
            when is_malformed then 'malformed_json'
            when event_time is null then 'missing:event_time'
            when event_type is null then 'missing:event_type'
            when product_id is null then 'missing:product_id'
            when event_at is null or not {{ is_plausible('event_at') }} then 'invalid:timestamp'
            when event_type not in ('view', 'cart', 'purchase', 'remove_from_cart') then 'invalid:event_type'
            when price is not null and amount is null then 'invalid:price'
            {{ reject_long_texts(['product_id', 'category_code', 'brand', 'user_id', 'user_session']) }}
        end as reject_reason
    from typed
),

identified as (
    select
        *,
        {{ hash_of([
            time_text_of('event_at'),
            'event_type', 'product_id', 'category_id', 'category_code', 'brand',
            amount_text_of('amount'),
            'user_id', 'user_session'
        ]) }} as event_id
    from judged
)

select
    -- ids
    stream,
    message_id,
    {{ event_key() }} as event_key,
    event_id,
    user_session as source_session_id,
    user_id,
    product_id,
    category_id,
    -- what happened
    event_type,
    category_code,
    brand,
    amount as price,
    -- times
    event_at,
    cast(event_at as date) as event_date,
    published_at,
    landed_at,
    -- judgement
    reject_reason,
    {{ reject_detail('event_time') }} as reject_detail,
    case when reject_reason is not null then payload end as rejected_payload
from identified
