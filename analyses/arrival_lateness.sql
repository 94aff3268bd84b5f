-- The delay between events and their publication, by day and stream.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}

select
    reporting_date,
    stream,
    events,
    p50_latency_seconds,
    p95_latency_seconds,
    max_latency_seconds,
    share_over_an_hour,
    share_over_a_day
from {{ ref('agg_arrival_lateness_daily') }}
where reporting_date between {{ start_date }} and {{ end_date }}
order by reporting_date desc, stream
