-- The store events of each session of the shop, in order. The shop reuses session ids at any time, so a new event
-- affects all events of its session, however old: this is the only model whose cost grows with the age of the sessions
-- that get new events.
{{ config(
    materialized='incremental',
    unique_key='event_key',
    partition_by={'field': 'event_date', 'data_type': 'date'},
    cluster_by='source_session_id'
) }}

{%- set new_sessions %}
    select source_session_id from {{ ref('stg_ecom_events') }}
    where reject_reason is null and source_session_id is not null and {{ is_new() }}
{%- endset %}
{%- set session_dates %}
    select distinct event_date as first_date, event_date as last_date
    from {{ this }}
    where source_session_id in ({{ new_sessions }})
{%- endset %}
{%- set new_dates = new_event_dates(ref('stg_ecom_events'), where='reject_reason is null') %}
{%- set dates = (new_dates + affected_dates(session_dates)) | unique | sort %}

with store_events as (
    select * from {{ ref('fct_events') }}
    where stream = 'ecom_events' and source_session_id is not null and {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ in_dates('event_date', dates) }} and source_session_id in ({{ new_sessions }})
    {% endif %}
),

sequenced as (
    select
        *,
        row_number() over event_order as session_event_number,
        lag(event_at) over event_order as previous_event_at,
        lag(event_type) over event_order as previous_event_type,
        min(event_at) over whole_session as session_started_at,
        max(event_at) over whole_session as session_ended_at
    from store_events
    window
        event_order as (partition by source_session_id order by event_at, event_id),
        whole_session as (partition by source_session_id)
)

select
    event_key,
    event_id,
    source_session_id,
    user_id,
    product_id,
    event_type,
    event_at,
    event_date,
    session_event_number,
    case when previous_event_at is not null then {{ seconds_between('previous_event_at', 'event_at') }} end
        as seconds_since_previous,
    previous_event_type,
    session_started_at,
    session_ended_at,
    {{ seconds_between('session_started_at', 'session_ended_at') }} as session_duration_seconds
from sequenced
