-- Sessions by the page on which they begin, and how many have no other page view.
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
    where {{ in_period(start_time, end_time, 'session_started_at') }}
    group by entry_page_title
)

select * from entry_pages
order by
    {{ column_named(sort, ['sessions', 'bounces', 'bounce_rate', 'users']) }} desc,
    sessions desc, bounces desc, entry_page_title
limit {{ limit }}
