-- The accounting: for every stream and landing date, landed = accepted + duplicates + rejected. Each number is counted
-- on its own: landed in raw, accepted in the facts, rejected in staging, and duplicates as the copies whose event or
-- version in the facts came from another message. A rejected message that was recovered landed again: it stays rejected
-- on its date, and the new message counts on its own. The dates on which new messages landed, and the originals of new
-- recoveries, are counted again.
{{ config(
    materialized='incremental',
    unique_key=['stream', 'landed_date'],
    partition_by={'field': 'landed_date', 'data_type': 'date'},
    meta={'live': 'with_snapshots'}
) }}

{%- set new_messages %}
    select distinct cast(landed_at as date) as first_date, cast(landed_at as date) as last_date
    from {{ ref('int_raw_messages') }}
    where {{ is_new() }}
    union all
    select distinct cast(original_landed_at as date), cast(original_landed_at as date)
    from {{ ref('int_recoveries') }}
    where {{ is_new() }}
{% endset %}
{%- set landed_dates = affected_dates(new_messages) %}
{%- set their_events %}
    select distinct event_date as first_date, event_date as last_date
    from {{ ref('int_staged_messages') }}
    where reject_reason is null and event_date is not null and {{ landed_in('landed_at', landed_dates) }}
{% endset %}
{%- set event_dates = affected_dates(their_events) %}

with raw_messages as (
    select * from {{ ref('int_raw_messages') }}
    where {{ is_in_build() }} and {{ landed_whole() }}
    {% if is_incremental() %}
        and {{ landed_in('landed_at', landed_dates) }}
    {% endif %}
),

staged_messages as (
    select * from {{ ref('int_staged_messages') }}
    where {{ is_in_build() }} and {{ landed_whole() }}
    {% if is_incremental() %}
        and {{ landed_in('landed_at', landed_dates) }}
    {% endif %}
),

facts as (
    select event_key, message_id, landed_at from {{ ref('fct_events') }}
    {% if is_incremental() %}
    where {{ in_dates('event_date', event_dates) }}
    {% endif %}
    union all
    select version_key, message_id, landed_at from {{ ref('int_versions') }}
),

landed as (
    select stream, cast(landed_at as date) as landed_date, count(*) as landed, max(landed_at) as last_landed_at
    from raw_messages
    group by 1, 2
),

compared as (
    select
        staged_messages.*,
        facts.message_id = staged_messages.message_id and facts.landed_at = staged_messages.landed_at as is_fact
    from staged_messages
    left join facts on staged_messages.event_key = facts.event_key
),

-- duplicates that differ from the event in fct_events, in the columns that it has
conflicting_copies as (
    select copies.stream, copies.message_id, copies.landed_at
    from {{ ref('int_accepted_events') }} as copies
    inner join {{ ref('fct_events') }} as facts on copies.event_key = facts.event_key
    where copies.event_key in (
        select compared.event_key
        from compared
        where not compared.is_fact
    )
    {% if is_incremental() %}
        and {{ landed_in('copies.landed_at', landed_dates) }}
        and {{ in_dates('facts.event_date', event_dates) }}
    {% endif %}
        and (
            {% for column in ['event_type', 'event_at'] + event_attributes() -%}
            copies.{{ column }} is distinct from facts.{{ column }}
            or {% endfor -%}
            {{ json_text('copies.properties') }} is distinct from {{ json_text('facts.properties') }}
        )
),

counted as (
    select
        compared.stream,
        cast(compared.landed_at as date) as landed_date,
        count(case when compared.is_fact then 1 end) as accepted,
        count(case when not compared.is_fact then 1 end) as duplicates,
        count(conflicting_copies.message_id) as conflicting,
        count(compared.reject_reason) as rejected,
        count(case when compared.is_key_mismatch and compared.reject_reason is null then 1 end) as mismatched_keys,
        max(case when compared.reject_reason is null then compared.event_at end) as newest_event_at
    from compared
    left join conflicting_copies
        on compared.stream = conflicting_copies.stream
        and compared.message_id = conflicting_copies.message_id
        and compared.landed_at = conflicting_copies.landed_at
    group by 1, 2
),

recovered_messages as (
    select stream, cast(landed_at as date) as landed_date, count(*) as recovered
    from {{ ref('dead_letters') }}
    where recovered_at is not null
    {% if is_incremental() %}
        and {{ landed_in('landed_at', landed_dates) }}
    {% endif %}
    group by 1, 2
)

select
    landed.stream,
    landed.landed_date,
    landed.landed,
    coalesce(counted.accepted, 0) as accepted,
    coalesce(counted.duplicates, 0) as duplicates,
    coalesce(counted.conflicting, 0) as conflicting,
    coalesce(counted.rejected, 0) as rejected,
    coalesce(recovered_messages.recovered, 0) as recovered,
    coalesce(counted.mismatched_keys, 0) as mismatched_keys,
    landed.landed
    = coalesce(counted.accepted, 0) + coalesce(counted.duplicates, 0) + coalesce(counted.rejected, 0) as is_balanced,
    counted.newest_event_at,
    landed.last_landed_at
from landed
left join counted on landed.stream = counted.stream and landed.landed_date = counted.landed_date
left join recovered_messages
    on landed.stream = recovered_messages.stream and landed.landed_date = recovered_messages.landed_date
{% if is_incremental() and removed_before() %}
-- dates of which retention has removed messages keep their other counts
union all

select
    known.stream,
    known.landed_date,
    known.landed,
    known.accepted,
    known.duplicates,
    known.conflicting,
    known.rejected,
    recovered_messages.recovered,
    known.mismatched_keys,
    known.is_balanced,
    known.newest_event_at,
    known.last_landed_at
from (
    select * from {{ this }}
    where not {{ landed_whole('cast(landed_date as timestamp)') }}
) as known
inner join recovered_messages
    on known.stream = recovered_messages.stream and known.landed_date = recovered_messages.landed_date
{% endif %}
