-- The accepted events of all streams, each once. Of the copies with the same event_key, the first that landed counts; a
-- copy that lands later changes nothing.
{{ config(
    materialized='incremental',
    partition_by={'field': 'event_date', 'data_type': 'date'},
    cluster_by=['event_type', 'product_id', 'category_code']
) }}
{%- set new_dates = new_event_dates(ref('int_accepted_events')) %}

with new_events as (
    select * from {{ ref('int_accepted_events') }}
    where {{ is_new() }}
),

-- nearly all events arrive once: ranking only the others takes half the time
copied as (
    select event_key from new_events
    group by event_key
    having count(*) > 1
),

-- the first of several new copies
first_copies as (
    select * from new_events
    where not exists (
        select 1 from copied
        where copied.event_key = new_events.event_key
    )

    union all

    select * from new_events
    where exists (
        select 1 from copied
        where copied.event_key = new_events.event_key
    )
    qualify row_number() over (partition by event_key order by {{ log_order() }}) = 1
)

select
    event_key,
    event_id,
    stream,
    event_type,
    event_at,
    event_date,
    {%- for attribute in event_attributes() %}
    {{ attribute }},
    {%- endfor %}
    cast(properties as json) as properties,
    message_id,
    published_at,
    landed_at,
    {{ seconds_between('event_at', 'published_at') }} as latency_seconds
from first_copies
{% if is_incremental() %}
-- leaves out copies of events of earlier builds; a copy has the date of its original
where not exists (
    select 1 from {{ this }} as known
    where {{ in_dates('known.event_date', new_dates) }} and known.event_key = first_copies.event_key
)
{% endif %}
