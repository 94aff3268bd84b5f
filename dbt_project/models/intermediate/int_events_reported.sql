-- fct_events with the day and hour in the reporting time zone.
{{ config(meta={'settings': ['reporting_time_zone']}) }}

select
    *,
    {{ reporting_date('event_at') }} as reporting_date,
    {{ reporting_hour('event_at') }} as reporting_hour_at
from {{ ref('fct_events') }}
