-- All staged messages of all streams, with the columns that the accounting needs. `event_key` is the identity of an
-- event or of a version of an entity; null for a rejected message.
{% for stream in streams() -%}
{% if stream in event_streams() -%}
select
    stream, message_id, landed_at, published_at, event_key, event_at, event_date, reject_reason, reject_detail,
    rejected_payload, unlisted_fields, false as is_key_mismatch
from {{ ref('stg_' ~ stream) }}
{%- else -%}
select
    stream, message_id, landed_at, published_at, version_key as event_key, null as event_at, null as event_date,
    reject_reason, reject_detail, rejected_payload, unlisted_fields, is_key_mismatch
from {{ ref('stg_' ~ stream) }}
{%- endif %}
{% if not loop.last %}union all{% endif %}
{% endfor %}
