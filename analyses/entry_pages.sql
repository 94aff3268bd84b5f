-- Sessions by the page on which they begin, and how many of them end there.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set sort = param('sort', 'sessions', ['sessions', 'bounces', 'bounce_rate', 'users']) %}
{%- set limit = param('limit', 20, 'integer') %}

with entry_pages as (
    select
        entry_page_title,
        count(*) as sessions,
        count(distinct user_id) as users,
        count(case when is_bounce then 1 end) as bounces,
        {{ ratio('count(case when is_bounce then 1 end)', 'count(*)') }} as bounce_rate,
        {{ ratio('sum(page_views)', 'count(*)') }} as average_page_views,
        {{ average('duration_seconds') }} as average_duration_seconds
    from {{ ref('fct_sessions') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and session_started_at >= {{ start_time }} and session_started_at < {{ end_time }}
    group by entry_page_title
)

select
    entry_page_title,
    sessions,
    users,
    bounces,
    bounce_rate,
    average_page_views,
    average_duration_seconds
from entry_pages
order by
    case {{ sort }}
        when 'sessions' then sessions
        when 'bounces' then bounces
        when 'bounce_rate' then bounce_rate
        when 'users' then users
    end desc,
    sessions desc, bounces desc, entry_page_title
limit {{ limit }}
