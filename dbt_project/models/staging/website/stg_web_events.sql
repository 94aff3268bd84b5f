-- One row a message, parsed once. The nested activity object makes bodies of 5 to 20 KB: actor, location and
-- generator are kept as JSON text, the rest stays in raw.
{{ config(meta={'settings': ['earliest_event_at']}) }}

with messages as (
    select stream, message_id, landed_at, coalesce(published_at, landed_at) as published_at, payload
    from {{ source('raw', 'web_events') }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('payload', fields_of('web_events')) }} as body from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        payload,
        body is null as is_malformed,
        {{ id_text('body.event_id') }} as source_event_id,
        {{ id_text('body.user_id') }} as user_id,
        {{ id_text('body.product') }} as product_id,
        nullif(body.publisher_id, '') as publisher_id,
        nullif(body.event, '') as event,
        case body.event when 'sale' then 'purchase' else nullif(body.event, '') end as event_type,
        nullif(body.environment, '') as environment,
        nullif(body.country, '') as country,
        nullif(body.city, '') as city,
        nullif(body.browser, '') as browser,
        nullif(body.os, '') as os,
        body.actor as actor,
        body.location as location,
        body.generator as generator,
        nullif(body.price, '') as price_text,
        {{ to_amount('body.price') }} as price,
        nullif(body.timestamp, '') as time_text,
        {{ to_timestamp('body.timestamp') }} as event_at
    from parsed
),

judged as (
    select
        *,
        case
            when is_malformed then 'malformed_json'
            when time_text is null then 'missing:timestamp'
            when event is null then 'missing:event'
            when product_id is null then 'missing:product'
            when event_at is null or not {{ is_plausible('event_at') }} then 'invalid:timestamp'
            when event not in ('view', 'cart', 'sale') then 'invalid:event'
            when price_text is not null and price is null then 'invalid:price'
            {{ reject_long_texts([
                ['source_event_id', 'event_id'], 'user_id', ['product_id', 'product'], 'country', 'city', 'browser', ['os', 'OS']
            ]) }}
        end as reject_reason
    from renamed
),

-- without an id, an event that is sent twice is known by what it says
identified as (
    select
        *,
        coalesce(
            source_event_id,
            {{ hash_of([
                time_text_of('event_at'), 'event', 'product_id', 'user_id', 'publisher_id', 'environment', 'country',
                'city', 'browser', 'os', amount_text_of('price')
            ]) }}
        ) as event_id
    from judged
)

select
    -- ids
    stream,
    message_id,
    {{ event_key() }} as event_key,
    event_id,
    user_id,
    product_id,
    publisher_id,
    -- what happened
    event_type,
    price,
    environment,
    country,
    city,
    browser,
    os,
    actor,
    location,
    generator,
    -- times
    event_at,
    cast(event_at as date) as event_date,
    published_at,
    landed_at,
    -- judgement
    reject_reason,
    {{ reject_detail('time_text') }} as reject_detail,
    case when reject_reason is not null then payload end as rejected_payload
from identified
