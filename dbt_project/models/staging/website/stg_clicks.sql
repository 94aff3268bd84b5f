-- One row a message, parsed once. user_agent and ip_address go no further than this.
{{ config(meta={'settings': ['earliest_event_at']}) }}

with messages as (
    select stream, message_id, landed_at, coalesce(published_at, landed_at) as published_at, payload
    from {{ source('raw', 'clicks') }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('payload', fields_of('clicks')) }} as body from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        payload,
        body is null as is_malformed,
        {{ id_text('body.click_id') }} as event_id,
        {{ id_text('body.user_id') }} as user_id,
        {{ id_text('body.product_id') }} as product_id,
        nullif(body.product, '') as product_name,
        nullif(body.price, '') as price_text,
        {{ to_amount('body.price') }} as price,
        nullif(body.url, '') as url,
        nullif(body.user_agent, '') as user_agent,
        nullif(body.ip_address, '') as ip_address,
        nullif(body.datetime_occured, '') as time_text,
        {{ to_timestamp('body.datetime_occured') }} as event_at
    from parsed
),

judged as (
    select
        *,
        case
            when is_malformed then 'malformed_json'
            when event_id is null then 'missing:click_id'
            when user_id is null then 'missing:user_id'
            when product_id is null then 'missing:product_id'
            when time_text is null then 'missing:datetime_occured'
            when event_at is null or not {{ is_plausible('event_at') }} then 'invalid:timestamp'
            when price_text is not null and price is null then 'invalid:price'
            {{ reject_long_texts([['event_id', 'click_id'], 'user_id', 'product_id', 'url']) }}
        end as reject_reason
    from renamed
)

select
    -- ids
    stream,
    message_id,
    {{ event_key() }} as event_key,
    event_id,
    user_id,
    product_id,
    -- what happened
    product_name,
    price,
    url,
    user_agent,
    ip_address,
    -- times
    event_at,
    cast(event_at as date) as event_date,
    published_at,
    landed_at,
    -- judgement
    reject_reason,
    {{ reject_detail('time_text') }} as reject_detail,
    case when reject_reason is not null then payload end as rejected_payload
from judged
