-- All page views, with their place in the session and the time spent on the page. A session is a series of page views
-- of one session key without a gap longer than var session_gap_seconds. A new page view can only change sessions that
-- are within such a gap of it: the model finds them in its own table, and orders them again together with the new page
-- views.
{{ config(
    materialized='incremental',
    unique_key='event_key',
    partition_by={'field': 'event_date', 'data_type': 'date'},
    cluster_by='session_key',
    meta={'settings': ['session_gap_seconds', 'session_key']}
) }}
{%- set gap = var('session_gap_seconds') %}
{%- set session_key = var('session_key') %}
{%- set accepted = 'reject_reason is null' %}
{%- set new_dates = new_event_dates(ref('stg_page_views'), where=accepted) %}
{%- set nearby_dates = new_event_dates(ref('stg_page_views'), before=gap, after=gap, where=accepted) %}

{#- The sessions of this table that are at most session_gap_seconds from a new page view, and the dates that they span.
    Window functions give each page view the nearest new one before and after it: a join by time would pair every page
    view of a busy session key with every other. Only page views in the same stretch of time are compared: a stretch is as
    long as the gap before and the gap after a page view together, so these two end in at most two stretches. -#}
{%- set affected_sessions %}
    with new_page_views as (
        select {{ session_key }} as session_key, event_at
        from {{ ref('stg_page_views') }}
        where {{ accepted }} and {{ is_new() }}
    ),

    stretches as (
        select session_key, {{ stretch('event_at - interval ' ~ gap ~ ' second', gap) }} as stretch from new_page_views
        union distinct
        select session_key, {{ stretch('event_at + interval ' ~ gap ~ ' second', gap) }} as stretch from new_page_views
    ),

    nearby as (
        select
            built.session_key, built.event_at, built.session_id, built.session_started_at, built.session_ended_at,
            cast(null as timestamp) as new_at
        from {{ this }} as built
        inner join stretches
            on built.session_key = stretches.session_key and {{ stretch('built.event_at', gap) }} = stretches.stretch
        where {{ in_dates('built.event_date', nearby_dates) }}
        union all
        select session_key, event_at, null, null, null, event_at from new_page_views
    ),

    nearest as (
        select
            *,
            max(new_at) over (partition by session_key order by event_at) as new_before,
            min(new_at) over (
                partition by session_key order by event_at range between current row and unbounded following
            ) as new_after
        from nearby
    )

    select distinct
        session_id,
        cast(session_started_at as date) as first_date,
        cast(session_ended_at as date) as last_date
    from nearest
    where session_id is not null
        and (
            new_before >= event_at - interval {{ gap }} second
            or new_after <= event_at + interval {{ gap }} second
        )
{%- endset %}
{%- set session_dates = affected_dates(affected_sessions) %}

with
{%- if is_incremental() %}
affected_sessions as (
    {{- affected_sessions }}
),

affected_keys as (
    select built.event_key
    from {{ this }} as built
    inner join affected_sessions on built.session_id = affected_sessions.session_id
    where {{ in_dates('built.event_date', session_dates) }}
    union distinct
    -- from the facts: in staging, a new row may be a copy of a page view in another session
    select event_key
    from {{ ref('fct_events') }}
    where stream = 'page_views' and {{ is_new() }} and {{ in_dates('event_date', new_dates) }}
),
{%- endif %}

page_views as (
    select events.*, {{ session_key }} as session_key
    from {{ ref('fct_events') }} as events
    {% if is_incremental() %}
    inner join affected_keys on events.event_key = affected_keys.event_key
    {% endif %}
    where events.stream = 'page_views' and {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ in_dates('events.event_date', (new_dates + session_dates) | unique | sort) }}
    {% endif %}
),

neighbours as (
    select
        *,
        lag(event_at) over (partition by session_key order by event_at, event_id) as key_previous_at
    from page_views
),

-- a session number per key; a gap of exactly the limit does not split a session
numbered as (
    select
        *,
        count(case when key_previous_at is null or event_at > key_previous_at + interval {{ gap }} second then 1 end)
            over (partition by session_key order by event_at, event_id rows unbounded preceding) as session_number
    from neighbours
),

sequenced as (
    select
        *,
        row_number() over page_order as sequence_number,
        lag(event_at) over page_order as previous_event_at,
        lead(event_at) over page_order as next_event_at,
        first_value(event_key) over whole_session as first_event_key,
        min(event_at) over whole_session as session_started_at,
        max(event_at) over whole_session as session_ended_at,
        count(*) over whole_session as session_page_views,
        first_value(page_title) over whole_session as entry_page_title,
        last_value(page_title) over whole_session as exit_page_title,
        max(landed_at) over whole_session as session_landed_at
    from numbered
    window
        page_order as (partition by session_key, session_number order by event_at, event_id),
        whole_session as (
            partition by session_key, session_number order by event_at, event_id
            rows between unbounded preceding and unbounded following
        )
)

select
    event_key,
    event_id,
    {{ surrogate_key(['session_key', 'first_event_key']) }} as session_id,
    session_key,
    source_session_id,
    user_id,
    account_number,
    traffic_source,
    page_title,
    event_at,
    event_date,
    sequence_number,
    previous_event_at,
    next_event_at,
    case
        when next_event_at is not null then {{ seconds_between('event_at', 'next_event_at') }}
        else cast(engaged_seconds as numeric(18, 6))
    end as time_on_page_seconds,
    case
        when next_event_at is not null then 'next_page'
        when engaged_seconds is not null then 'engaged_time'
    end as time_on_page_source,
    session_ended_at + interval {{ gap }} second as window_end_at,
    session_started_at,
    session_ended_at,
    session_page_views,
    entry_page_title,
    exit_page_title,
    {{ seconds_between('session_started_at', 'session_ended_at') }} as session_duration_seconds,
    message_id,
    landed_at,
    session_landed_at
from sequenced
