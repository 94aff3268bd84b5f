-- Each session has one first page view, and its page views are numbered without gaps up to its count of page views.
{%- set dates = changed_dates(ref('fct_page_views').identifier) %}

with sessions as (
    select
        session_id,
        count(*) as page_views,
        max(sequence_number) as last_number,
        min(session_page_views) as least_page_views,
        max(session_page_views) as most_page_views,
        count(case when sequence_number = 1 then 1 end) as first_page_views
    from {{ ref('fct_page_views') }}
    {% if dates is not none %}
    -- a session over midnight may have page views on a date that is not read: only `make test-data` checks it
    where {{ in_dates('event_date', dates) }} and cast(session_started_at as date) = cast(session_ended_at as date)
    {% endif %}
    group by session_id
)

select *
from sessions
where first_page_views != 1
    or last_number != page_views
    or least_page_views != page_views
    or most_page_views != page_views
