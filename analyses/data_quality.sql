-- One row per stream: the accounting of what landed, how late its events were, and how fresh they are.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}

with accounting as (
    select
        stream,
        cast(sum(landed) as bigint) as landed,
        cast(sum(accepted) as bigint) as accepted,
        cast(sum(duplicates) as bigint) as duplicates,
        cast(sum(conflicting) as bigint) as conflicting,
        cast(sum(rejected) as bigint) as rejected,
        cast(sum(recovered) as bigint) as recovered,
        cast(sum(mismatched_keys) as bigint) as mismatched_keys,
        min(case when is_balanced then 1 else 0 end) = 1 as is_balanced
    from {{ ref('landing_reconciliation') }}
    where landed_date between {{ start_date }} and {{ end_date }}
    group by stream
),

lateness as (
    select
        stream,
        max(p95_latency_seconds) as worst_p95_latency_seconds,
        max(max_latency_seconds) as max_latency_seconds
    from {{ ref('agg_arrival_lateness_daily') }}
    where reporting_date between {{ start_date }} and {{ end_date }}
    group by stream
),

-- the same id on another day is another event (fct_events), so a source that reuses ids shows here
reuse as (
    select stream, count(*) - count(distinct event_id) as reused_ids
    from {{ ref('fct_events') }}
    where event_date between {{ start_date }} and {{ end_date }}
    group by stream
),

-- freshness is as of now, so end_date does not apply
freshness as (
    select
        stream,
        max(newest_event_at) as newest_event_at,
        max(last_landed_at) as last_landed_at
    from {{ ref('landing_reconciliation') }}
    where landed_date >= {{ start_date }}
    group by stream
),

-- measured by `live` alone
until_answered as (
    select
        stream,
        max(p95_seconds) as worst_p95_freshness_seconds,
        max(p95_landing_seconds) as worst_p95_landing_seconds,
        max(p95_waiting_seconds) as worst_p95_waiting_seconds,
        max(p95_building_seconds) as worst_p95_building_seconds,
        max(p95_publishing_seconds) as worst_p95_publishing_seconds
    from {{ ref('stream_freshness') }}
    where cast(minute_at as date) between {{ start_date }} and {{ end_date }}
    group by stream
),

-- over all time: a producer that sends such a field usually continues to
drift as (
    select stream, count(*) as fields
    from {{ ref('field_drift') }}
    group by stream
)

select
    accounting.stream,
    accounting.landed,
    accounting.accepted,
    accounting.duplicates,
    accounting.conflicting,
    accounting.rejected,
    accounting.recovered,
    accounting.mismatched_keys,
    accounting.is_balanced,
    {{ ratio('accounting.rejected', 'accounting.landed') }} as rejected_share,
    lateness.worst_p95_latency_seconds,
    lateness.max_latency_seconds,
    reuse.reused_ids,
    coalesce(drift.fields, 0) as drifting_fields,
    freshness.newest_event_at,
    freshness.last_landed_at,
    until_answered.worst_p95_freshness_seconds,
    until_answered.worst_p95_landing_seconds,
    until_answered.worst_p95_waiting_seconds,
    until_answered.worst_p95_building_seconds,
    until_answered.worst_p95_publishing_seconds,
    '{{ var("reporting_time_zone") }}' as reporting_time_zone
from accounting
left join lateness on accounting.stream = lateness.stream
left join reuse on accounting.stream = reuse.stream
left join drift on accounting.stream = drift.stream
left join freshness on accounting.stream = freshness.stream
left join until_answered on accounting.stream = until_answered.stream
order by accounting.stream
