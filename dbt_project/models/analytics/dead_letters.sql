-- All rejected messages, as received, with the reason.
{{ config(
    materialized='incremental',
    unique_key=['stream', 'message_id', 'landed_at'],
    partition_by={'field': 'landed_at', 'data_type': 'timestamp', 'granularity': 'day'}
) }}

select
    message_id,
    stream,
    reject_reason as reason,
    reject_detail as detail,
    rejected_payload as payload,
    published_at,
    landed_at
from {{ ref('int_staged_messages') }}
where reject_reason is not null and {{ is_new() }}
