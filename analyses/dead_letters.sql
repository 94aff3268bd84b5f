-- The rejected messages that landed last, with their payloads as text.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set stream = param('stream', 'all', 'string') %}
{%- set reason = param('reason', 'all', 'string') %}
{%- set characters = param('characters', 2000, 'integer') %}
{%- set limit = param('limit', 20, 'integer') %}

-- the limit comes first, so that only these payloads are decoded
with letters as (
    select *
    from {{ ref('dead_letters') }}
    where landed_at >= {{ start_time }} and landed_at < {{ end_time }}
        and (lower({{ stream }}) = 'all' or stream = lower({{ stream }}))
        and (lower({{ reason }}) = 'all' or lower(reason) = lower({{ reason }}))
    order by landed_at desc, stream, message_id
    limit {{ limit }}
)

select
    landed_at,
    stream,
    reason,
    detail,
    message_id,
    published_at,
    octet_length(payload) as payload_bytes,
    case when payload is not null then {{ utf8_text('payload') }} is not null end as is_utf8,
    substr({{ lossy_text('payload') }}, 1, {{ characters }}) as payload
from letters
order by landed_at desc, stream, message_id
