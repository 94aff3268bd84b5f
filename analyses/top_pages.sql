-- Pages by the time that visitors spend on them.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set limit = param('limit', 20, 'integer') %}

select
    page_title,
    count(*) as page_views,
    count(distinct session_id) as sessions,
    count(distinct user_id) as users,
    count(case when sequence_number = 1 then 1 end) as entries,
    count(case when sequence_number = session_page_views then 1 end) as exits,
    count(time_on_page_seconds) as timed_page_views,
    coalesce(sum(time_on_page_seconds), 0) as time_on_page_seconds,
    {{ average('time_on_page_seconds') }} as average_time_on_page_seconds
from {{ ref('fct_page_views') }}
where {{ in_period(start_time, end_time) }}
group by page_title
order by time_on_page_seconds desc, page_views desc, page_title
limit {{ limit }}
