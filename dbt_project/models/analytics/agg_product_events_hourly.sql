-- One row per product and hour of the reporting time zone with an event of the product.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'reporting_hour_at', 'product_id'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    cluster_by='product_id'
) }}

select
    reporting_date,
    reporting_hour_at,
    product_id,
    {{ measures(['events', 'views', 'carts', 'purchases', 'users', 'revenue']) }}
from {{ events_of_affected_days() }}
where product_id is not null
group by reporting_date, reporting_hour_at, product_id
