-- One row a stream and reporting date of the events: how long after it happened an event was published.
-- The percentiles are values that occurred (the least that so many do not exceed), alike on both engines.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'stream'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'}
) }}
{%- set dates = new_reporting_dates(ref('int_accepted_events')) %}

with events as (
    select * from {{ ref('int_events_reported') }}
    where {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ in_reporting_dates(dates) }}
    {% endif %}
),

ranked as (
    select
        *,
        row_number() over (partition by stream, reporting_date order by latency_seconds) as place,
        count(*) over (partition by stream, reporting_date) as events
    from events
)

select
    reporting_date,
    stream,
    count(*) as events,
    min(case when place >= 0.5 * events then latency_seconds end) as p50_latency_seconds,
    min(case when place >= 0.95 * events then latency_seconds end) as p95_latency_seconds,
    max(latency_seconds) as max_latency_seconds,
    {{ ratio('count(case when latency_seconds > 3600 then 1 end)', 'count(*)') }} as share_over_an_hour,
    {{ ratio('count(case when latency_seconds > 86400 then 1 end)', 'count(*)') }} as share_over_a_day
from ranked
group by reporting_date, stream
