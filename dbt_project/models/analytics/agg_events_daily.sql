-- One row per reporting date.
{{ config(
    materialized='incremental',
    unique_key='reporting_date',
    partition_by={'field': 'reporting_date', 'data_type': 'date'}
) }}

select
    reporting_date,
    {{ measures([
        'events', 'views', 'carts', 'purchases', 'users', 'page_views', 'clicks', 'checkouts', 'revenue',
        'checkout_amount'
    ]) }}
from {{ events_of_affected_days() }}
group by reporting_date
