-- One row per hour of the reporting time zone.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'reporting_hour_at'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'}
) }}

select
    reporting_date,
    reporting_hour_at,
    {{ measures([
        'events', 'views', 'carts', 'purchases', 'users', 'page_views', 'clicks', 'checkouts', 'revenue',
        'checkout_amount'
    ]) }}
from {{ events_of_affected_days() }}
group by reporting_date, reporting_hour_at
