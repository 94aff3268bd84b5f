-- One row per session: its first page view, which has the values of the session. A view, because a late page view can
-- join two sessions, and from a table one of them would have to be deleted.
{{ config(materialized='view', meta={'partitions_of': 'fct_page_views'}) }}

select
    session_id,
    session_key,
    source_session_id,
    user_id,
    account_number,
    traffic_source,
    event_date,
    session_started_at,
    session_ended_at,
    window_end_at,
    session_page_views as page_views,
    entry_page_title,
    exit_page_title,
    session_duration_seconds as duration_seconds,
    session_page_views = 1 as is_bounce,
    session_landed_at
from {{ ref('fct_page_views') }}
where sequence_number = 1
