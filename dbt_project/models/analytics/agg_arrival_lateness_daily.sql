-- One row per stream and reporting date of its events: the delay between events and their publication.
-- A percentile is the smallest latency that at least this share of the events does not exceed. So it is a latency that
-- occurred, and the same on both engines: their own percentile functions interpolate or approximate.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'stream'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    meta={'live': 'with_snapshots'}
) }}

with ranked as (
    select
        *,
        row_number() over (partition by stream, reporting_date order by latency_seconds) as place,
        count(*) over (partition by stream, reporting_date) as events
    from {{ events_of_affected_days() }}
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
