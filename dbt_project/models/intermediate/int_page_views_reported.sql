-- Page views as the metrics of page views and sessions need them, with the day in the reporting time zone.
select
    event_key,
    session_id,
    user_id,
    account_number,
    traffic_source,
    page_title,
    entry_page_title,
    exit_page_title,
    time_on_page_seconds,
    sequence_number = 1 as is_entry,
    sequence_number = 1 and session_page_views = 1 as is_bounce,
    {{ reporting_date('event_at') }} as reporting_date
from {{ ref('fct_page_views') }}
