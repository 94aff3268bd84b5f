-- One row a message of the change log, parsed once: a version of a product, or its deletion by a tombstone, which has
-- its id in the message key and its time in published_at.
{{ config(meta={'settings': ['earliest_event_at']}) }}

with messages as (
    select stream, message_id, landed_at, coalesce(published_at, landed_at) as published_at, key, payload
    from {{ source('raw', 'products') }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('payload', fields_of('products')) }} as body from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        key,
        payload,
        payload is null as is_tombstone,
        payload is not null and body is null as is_malformed,
        case
            when payload is null then {{ key_id('product_id') }}
            else {{ id_text('body.product_id') }}
        end as product_id,
        case when payload is not null and key is not null then {{ key_id('product_id') }} end as key_id,
        nullif(body.name, '') as name,
        nullif(body.category_code, '') as category_code,
        nullif(body.category, '') as category,
        nullif(body.model, '') as model,
        nullif(body.brand, '') as brand,
        nullif(body.price, '') as price_text,
        {{ to_amount('body.price') }} as price,
        nullif(body.created_at, '') as created_text,
        {{ to_timestamp('body.created_at') }} as created_at,
        nullif(body.updated_at, '') as updated_text,
        case when payload is null then published_at else {{ to_timestamp('body.updated_at') }} end as updated_at,
        nullif(body.deleted_at, '') as deleted_text,
        -- Debezium's unwrapped deletes have no time of their own
        case when lower(body.__deleted) = 'true' and nullif(body.deleted_at, '') is null
            then {{ to_timestamp('body.updated_at') }} else {{ to_timestamp('body.deleted_at') }}
        end as deleted_at
    from parsed
),

judged as (
    select
        *,
        case
            when is_malformed then 'malformed_json'
            when is_tombstone and octet_length(key) > 0 and product_id is null then 'invalid:key'
            when product_id is null then 'missing:product_id'
            when updated_text is null and not is_tombstone then 'missing:updated_at'
            when updated_at is null or not {{ is_plausible('updated_at') }} then 'invalid:timestamp'
            when created_text is not null and (created_at is null or not {{ is_plausible('created_at') }})
                then 'invalid:created_at'
            when deleted_text is not null and (deleted_at is null or not {{ is_plausible('deleted_at') }})
                then 'invalid:deleted_at'
            when price_text is not null and price is null then 'invalid:price'
            {{ reject_long_texts(['product_id', 'name', 'category_code', 'category', 'model', 'brand']) }}
        end as reject_reason
    from renamed
)

select
    -- ids
    stream,
    message_id,
    {{ version_key('product_id', ['name', 'category_code', 'category', 'model', 'brand', amount_text_of('price')]) }}
        as version_key,
    product_id,
    -- what it is
    name,
    category_code,
    category,
    model,
    brand,
    price,
    is_tombstone,
    -- times
    created_at,
    updated_at,
    deleted_at,
    published_at,
    landed_at,
    -- judgement
    reject_reason,
    {{ reject_detail('updated_text', key='key') }} as reject_detail,
    key is not null and not is_tombstone and coalesce(key_id != product_id, true) as is_key_mismatch,
    case when reject_reason is not null then payload end as rejected_payload
from judged
