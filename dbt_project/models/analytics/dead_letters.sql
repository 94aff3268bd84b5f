-- All rejected messages, as received, with the reason. One that was recovered stays, and its row says when and how.
{{ config(
    materialized='incremental',
    unique_key=['stream', 'message_id', 'landed_at'],
    partition_by={'field': 'landed_at', 'data_type': 'timestamp', 'granularity': 'day'}
) }}

{%- set new_recoveries %}
    select distinct cast(original_landed_at as date) as first_date, cast(original_landed_at as date) as last_date
    from {{ ref('int_recoveries') }}
    where {{ is_new() }}
{% endset %}
{%- set recovered_dates = affected_dates(new_recoveries) %}

-- a message is recovered after it landed: those of new dead letters are new too. The first of several counts.
with recoveries as (
    select * from {{ ref('int_recoveries') }}
    where {{ is_new() }}
    qualify row_number() over (
        partition by stream, original_message_id, original_landed_at order by landed_at
    ) = 1
),

rejected as (
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

    {% if is_incremental() %}
    -- those of earlier builds that were recovered since
    union all

    select message_id, stream, reason, detail, payload, published_at, landed_at
    from {{ this }} as known
    where {{ landed_in('landed_at', recovered_dates) }} and recovered_at is null and not ({{ is_new() }})
        and exists (
            select 1 from recoveries
            where recoveries.stream = known.stream
                and recoveries.original_message_id = known.message_id
                and recoveries.original_landed_at = known.landed_at
        )
    {% endif %}
)

select
    rejected.message_id,
    rejected.stream,
    rejected.reason,
    rejected.detail,
    rejected.payload,
    rejected.published_at,
    rejected.landed_at,
    recoveries.landed_at as recovered_at,
    recoveries.recovery_patch
from rejected
left join recoveries
    on rejected.stream = recoveries.stream
    and rejected.message_id = recoveries.original_message_id
    and rejected.landed_at = recoveries.original_landed_at
