-- One row per message, parsed once. Three formats of bodies are read: that of GA4's continuous query, an older one
-- (page_id, timestamp_ms) and rows of GA4's BigQuery export. Fields with different names get one name here.
{{ config(meta={'settings': ['earliest_event_at', 'customer_id_filter', 'allowed_lateness_seconds', 'session_key']}) }}

with messages as (
    select
        stream,
        message_id,
        landed_at,
        coalesce(published_at, landed_at) as published_at,
        payload,
        {{ utf8_text('payload') }} as body_text
    from {{ source('raw', 'page_views') }}
    where {{ is_new() }}
),

parsed as (
    select *, {{ parse_json('body_text', fields_of('page_views'), contract=contracts()['page_views']) }} as body
    from messages
),

parsed_params as (
    select
        *,
        {{ parse_event_params('body.event_params', [
            'page_title', 'page_location', 'traffic_source', 'engaged_time', 'engagement_time_msec', 'ga_session_id',
            'test_event'
        ]) }} as params
    from parsed
),

renamed as (
    select
        stream,
        message_id,
        landed_at,
        published_at,
        payload,
        body is null as is_malformed,
        {{ unlisted_fields('body_text', contracts()['page_views']) }} as unlisted_fields,
        {{ id_text('body.event_id') }} as source_event_id,
        -- the older body has no session id, so the user is the key
        coalesce(
            {{ id_text('body.session_id') }},
            {{ id_text('body.user_pseudo_id') }} || '.' || {{ id_text('params.ga_session_id') }},
            case when body.page_id is not null then {{ id_text('body.user_id') }} end
        ) as source_session_id,
        {{ id_text('body.user_id') }} as user_id,
        {{ id_text('body.user_pseudo_id') }} as user_pseudo_id,
        {{ id_text('body.account_number') }} as account_number,
        coalesce(nullif(body.page_title, ''), nullif(body.page_id, ''), nullif(params.page_title, '')) as page_title,
        nullif(params.page_location, '') as url,
        body.event_bundle_sequence_id,
        body.batch_event_index,
        body.batch_page_id,
        body.batch_ordering_id,
        nullif(params.traffic_source, '') as traffic_source,
        coalesce(body.event_name, 'page_view') as event_name,
        coalesce(lower(params.test_event) in ('true', '1'), false) as is_test_event,
        coalesce(
            nullif(body.ga_event_dtm, ''), nullif(body.event_timestamp_ms, ''),
            nullif(body.timestamp_ms, ''), nullif(body.event_timestamp, '')
        ) as time_text,
        case
            when nullif(body.ga_event_dtm, '') is not null then {{ to_timestamp('body.ga_event_dtm') }}
            when nullif(body.event_timestamp_ms, '') is not null
                then {{ epoch_to_timestamp('body.event_timestamp_ms', 1000) }}
            when nullif(body.timestamp_ms, '') is not null then {{ epoch_to_timestamp('body.timestamp_ms', 1000) }}
            else {{ epoch_to_timestamp('body.event_timestamp', 1000000) }}
        end as event_at,
        coalesce(nullif(params.engaged_time, ''), nullif(params.engagement_time_msec, '')) as engaged_text,
        case
            when nullif(params.engaged_time, '') is not null
                then {{ to_amount('params.engaged_time') }}
            else round({{ to_amount('params.engagement_time_msec') }} * cast(0.001 as numeric(4, 3)), 4)
        end as engaged_seconds
    from parsed_params
),

validated as (
    select
        *,
        case
            when is_malformed then 'malformed_json'
            when source_session_id is null then 'missing:session_id'
            when time_text is null then 'missing:ga_event_dtm'
            when page_title is null then 'missing:page_title'
            {% if var('session_key') == 'user_id' %}
            when user_id is null then 'missing:user_id'
            {% endif %}
            when event_at is null or not {{ is_plausible('event_at') }} then 'invalid:timestamp'
            when event_name != 'page_view' then 'invalid:event_name'
            -- more seconds than this do not fit in numeric(18, 6)
            when engaged_text is not null and coalesce(engaged_seconds not between 0 and 999999999999, true)
                then 'invalid:engaged_time'
            {{ reject_long_texts([
                ['source_event_id', 'event_id'], ['source_session_id', 'session_id'], 'user_id', 'user_pseudo_id', 'account_number',
                'page_title', ['url', 'page_location'], 'traffic_source'
            ]) }}
            when is_test_event then 'test_event'
            {% if var('customer_id_filter') %}
            when account_number is null
                or account_number not in ('{{ var("customer_id_filter") | join("', '") }}') then 'filtered_customer'
            {% endif %}
            {% if var('allowed_lateness_seconds') is not none %}
            when published_at > event_at + interval {{ var('allowed_lateness_seconds') }} second then 'too_late'
            {% endif %}
        end as reject_reason
    from renamed
),

-- GA4 sends the events of a page in batches with the same time: the URL and the place in the batch distinguish them
identified as (
    select
        *,
        coalesce(
            source_event_id,
            {{ surrogate_key([
                'source_session_id', time_text_of('event_at'), 'page_title', 'user_pseudo_id', 'url',
                'event_bundle_sequence_id', 'batch_event_index', 'batch_page_id', 'batch_ordering_id'
            ]) }}
        ) as event_id
    from validated
)

select
    -- ids
    stream,
    message_id,
    {{ event_key('page_views') }} as event_key,
    event_id,
    source_session_id,
    user_id,
    user_pseudo_id,
    account_number,
    -- what happened
    page_title,
    url,
    traffic_source,
    engaged_seconds,
    -- times
    event_at,
    cast(event_at as date) as event_date,
    published_at,
    landed_at,
    -- validation
    reject_reason,
    {{ reject_detail('time_text', values={
        'event_name': "nullif(event_name, '')", 'engaged_time': 'engaged_text'
    }) }} as reject_detail,
    case when reject_reason is not null then payload end as rejected_payload,
    unlisted_fields
from identified
