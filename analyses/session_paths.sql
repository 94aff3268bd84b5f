-- The first pages of each session in order, without repeats of the page before. A session counts in the period in which
-- it starts. Its page views may have later dates, so event_date has no upper bound.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set steps = param('steps', 5, 'integer') %}
{%- set min_steps = param('min_steps', 1, 'integer') %}
{%- set limit = param('limit', 20, 'integer') %}

with page_views as (
    select
        session_id,
        page_title,
        sequence_number,
        session_page_views,
        session_duration_seconds,
        lag(page_title) over (partition by session_id order by sequence_number) as previous_title
    from {{ ref('fct_page_views') }}
    where event_date >= cast({{ start_time }} as date)
        and session_started_at >= {{ start_time }} and session_started_at < {{ end_time }}
),

-- views of the same page in a row are one step
steps as (
    select *, row_number() over (partition by session_id order by sequence_number) as step
    from page_views
    where previous_title is null or page_title != previous_title
),

sessions as (
    select
        session_id,
        string_agg(case when step <= {{ steps }} then page_title end, ' > ' order by step)
        || case when max(step) > {{ steps }} then ' > ...' else '' end as path,
        max(step) as steps,
        max(session_page_views) as page_views,
        max(session_duration_seconds) as duration_seconds,
        count(*) over () as all_sessions
    from steps
    group by session_id
)

select
    path,
    count(*) as sessions,
    cast(sum(page_views) as bigint) as page_views,
    {{ average('duration_seconds') }} as average_duration_seconds,
    {{ ratio('count(*)', 'max(all_sessions)') }} as share_of_sessions
from sessions
where steps >= {{ min_steps }}
group by path
order by sessions desc, path
limit {{ limit }}
