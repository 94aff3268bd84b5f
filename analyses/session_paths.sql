-- The first pages of each session in order. A session counts in the period in which it starts; its pages may be of
-- later dates, so that only the start bounds the dates that are read.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set steps = param('steps', 5, 'integer') %}
{%- set limit = param('limit', 20, 'integer') %}

with sessions as (
    select
        session_id,
        string_agg(page_title, ' > ' order by sequence_number)
        || case when max(session_page_views) > {{ steps }} then ' > ...' else '' end as path,
        max(session_page_views) as page_views,
        max(session_duration_seconds) as duration_seconds
    from {{ ref('fct_page_views') }}
    where event_date >= cast({{ start_time }} as date)
        and session_started_at >= {{ start_time }} and session_started_at < {{ end_time }}
        and sequence_number <= {{ steps }}
    group by session_id
)

select
    path,
    count(*) as sessions,
    cast(sum(page_views) as bigint) as page_views,
    {{ average('duration_seconds') }} as average_duration_seconds
from sessions
group by path
order by sessions desc, path
limit {{ limit }}
