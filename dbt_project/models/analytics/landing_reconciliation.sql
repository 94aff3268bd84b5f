-- The accounting: for every stream and landing date, landed = accepted + duplicates + rejected. No count is a
-- remainder of the others: landed counts raw, accepted the facts, duplicates the copies whose fact came from another
-- message. The days on which new messages landed are counted again.
{{ config(
    materialized='incremental',
    unique_key=['stream', 'landed_date'],
    partition_by={'field': 'landed_date', 'data_type': 'date'}
) }}

{%- set landed_dates = dates_from(
    'select distinct cast(landed_at as date) as first_date, cast(landed_at as date) as last_date from '
    ~ ref('int_raw_messages') ~ ' where ' ~ is_new()
) %}
{%- set event_dates = dates_from(
    'select distinct event_date as first_date, event_date as last_date from ' ~ ref('int_staged_messages')
    ~ ' where reject_reason is null and event_date is not null and ' ~ landed_on('landed_at', landed_dates)
) %}

with raw_messages as (
    select * from {{ ref('int_raw_messages') }}
    where {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ landed_on('landed_at', landed_dates) }}
    {% endif %}
),

staged_messages as (
    select * from {{ ref('int_staged_messages') }}
    where {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ landed_on('landed_at', landed_dates) }}
    {% endif %}
),

facts as (
    select event_key, message_id, landed_at from {{ ref('fct_events') }}
    {% if is_incremental() %}
    where {{ on_dates('event_date', event_dates) }}
    {% endif %}
    union all
    select version_key, message_id, landed_at from {{ ref('dim_users_history') }}
    union all
    select version_key, message_id, landed_at from {{ ref('dim_products_history') }}
    union all
    select version_key, message_id, landed_at from {{ ref('dim_posts_history') }}
),

landed as (
    select stream, cast(landed_at as date) as landed_date, count(*) as landed
    from raw_messages
    group by 1, 2
),

judged as (
    select
        staged_messages.stream,
        cast(staged_messages.landed_at as date) as landed_date,
        count(case
            when facts.message_id = staged_messages.message_id and facts.landed_at = staged_messages.landed_at then 1
        end) as accepted,
        count(case
            when facts.message_id != staged_messages.message_id or facts.landed_at != staged_messages.landed_at then 1
        end) as duplicates,
        count(staged_messages.reject_reason) as rejected
    from staged_messages
    left join facts on staged_messages.event_key = facts.event_key
    group by 1, 2
)

select
    landed.stream,
    landed.landed_date,
    landed.landed,
    coalesce(judged.accepted, 0) as accepted,
    coalesce(judged.duplicates, 0) as duplicates,
    coalesce(judged.rejected, 0) as rejected,
    landed.landed = coalesce(judged.accepted, 0) + coalesce(judged.duplicates, 0) + coalesce(judged.rejected, 0)
        as is_balanced
from landed
left join judged on landed.stream = judged.stream and landed.landed_date = judged.landed_date
