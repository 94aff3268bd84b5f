-- One row per category and reporting date. Codes that differ only in case are one category. The category is that of
-- the event: a product that changes its category later does not rewrite the past.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'category_code'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    cluster_by='category_code'
) }}

with events as (
    select *, lower(category_code) as category
    from {{ events_of_affected_days() }}
    where category_code is not null
)

select
    reporting_date,
    category as category_code,
    {{ measures(['events', 'views', 'carts', 'purchases', 'users', 'revenue', 'purchases_per_view']) }}
from events
group by reporting_date, category
