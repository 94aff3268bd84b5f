-- One row a message, parsed once.
{{ config(meta={'settings': ['earliest_event_at']}) }}

with messages as (
    select stream, message_id, landed_at, coalesce(published_at, landed_at) as published_at, payload
    from {{ source('raw', 'post_events') }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('payload', fields_of('post_events')) }} as body
    from messages
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        payload,
        body is null as is_malformed,
        {{ id_text('body.event_id') }} as event_id,
        {{ id_text('body.user_id') }} as user_id,
        {{ id_text('body.post_id') }} as post_id,
        nullif(body.event_type, '') as event_type,
        nullif(body.created_at, '') as time_text,
        {{ to_timestamp('body.created_at') }} as event_at
    from parsed
),

judged as (
    select
        *,
        case
            when is_malformed then 'malformed_json'
            when event_id is null then 'missing:event_id'
            when user_id is null then 'missing:user_id'
            when post_id is null then 'missing:post_id'
            when time_text is null then 'missing:created_at'
            when event_type is null then 'missing:event_type'
            when event_at is null or not {{ is_plausible('event_at') }} then 'invalid:timestamp'
            when event_type not in ('view', 'like') then 'invalid:event_type'
            {{ reject_long_texts(['event_id', 'user_id', 'post_id']) }}
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
    post_id,
    -- what happened
    case event_type when 'view' then 'post_view' when 'like' then 'post_like' end as event_type,
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
