-- One row per user and reporting date with an event. A session counts on the day of its first page view, for the user
-- of that page view. A new page view can become the first of its session, so it affects all days of the session.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'user_id'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    cluster_by='user_id'
) }}
{%- set new_view_dates = new_event_dates(ref('stg_page_views'), where='reject_reason is null') %}
{%- set new_sessions %}
    select distinct
        {{ reporting_date('session_started_at') }} as first_date,
        {{ reporting_date('session_ended_at') }} as last_date
    from {{ ref('fct_page_views') }}
    where {{ in_dates('event_date', new_view_dates) }}
        and event_key in (
            select event_key from {{ ref('stg_page_views') }}
            where reject_reason is null and {{ is_new() }}
        )
{%- endset %}
{%- set session_dates = affected_dates(new_sessions) %}
{%- set dates = (new_reporting_dates(ref('int_accepted_events')) + session_dates) | unique | sort %}

with events as (
    select * from {{ ref('int_events_reported') }}
    where user_id is not null and {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ in_reporting_dates(dates) }}
    {% endif %}
),

event_metrics as (
    select
        reporting_date,
        user_id,
        count(*) as events,
        count(case when event_type = 'post_like' then 1 end) as likes_given,
        count(distinct case when event_type = 'post_view' then post_id end) as posts_viewed
    from events
    group by reporting_date, user_id
),

sessions as (
    select {{ reporting_date('event_at') }} as reporting_date, user_id, count(*) as sessions
    from {{ ref('fct_page_views') }}
    where sequence_number = 1
    {% if is_incremental() %}
        and {{ in_reporting_dates(dates) }}
    {% endif %}
    group by {{ reporting_date('event_at') }}, user_id
)

select
    event_metrics.reporting_date,
    event_metrics.user_id,
    event_metrics.events,
    event_metrics.likes_given,
    event_metrics.posts_viewed,
    coalesce(sessions.sessions, 0) as sessions
from event_metrics
left join sessions
    on event_metrics.reporting_date = sessions.reporting_date and event_metrics.user_id = sessions.user_id
