-- Sessions by the day on which they start.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}

select
    {{ reporting_date('session_started_at') }} as reporting_date,
    count(*) as sessions,
    count(distinct user_id) as users,
    cast(sum(page_views) as bigint) as page_views,
    count(case when is_bounce then 1 end) as bounces,
    {{ ratio('count(case when is_bounce then 1 end)', 'count(*)') }} as bounce_rate,
    {{ ratio('sum(page_views)', 'count(*)') }} as average_page_views,
    {{ average('duration_seconds') }} as average_duration_seconds
from {{ ref('fct_sessions') }}
where {{ in_period(start_time, end_time, 'session_started_at') }}
group by {{ reporting_date('session_started_at') }}
order by reporting_date desc
