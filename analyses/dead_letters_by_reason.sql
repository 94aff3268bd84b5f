-- Open dead letters by stream and reason: rejected messages that were not recovered.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}

select
    stream,
    reason,
    count(*) as messages,
    min(landed_at) as first_landed_at,
    max(landed_at) as last_landed_at
from {{ ref('dead_letters') }}
where recovered_at is null
    and landed_at >= {{ start_time }} and landed_at < {{ end_time }}
group by stream, reason
order by messages desc, stream, reason
