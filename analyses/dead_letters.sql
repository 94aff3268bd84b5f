-- The open dead letters that landed last: rejected messages that were not recovered.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set stream = param('stream', 'all', 'string') %}
{%- set reason = param('reason', 'all', 'string') %}
{%- set limit = param('limit', 20, 'integer') %}

select
    landed_at,
    stream,
    reason,
    message_id,
    published_at
from {{ ref('dead_letters') }}
where recovered_at is null
    and landed_at >= {{ start_time }} and landed_at < {{ end_time }}
    and (lower({{ stream }}) = 'all' or stream = lower({{ stream }}))
    and (lower({{ reason }}) = 'all' or lower(reason) = lower({{ reason }}))
order by landed_at desc, stream, message_id
limit {{ limit }}
