-- One row per product and reporting date with an event of the product.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'product_id'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    cluster_by='product_id'
) }}

select
    reporting_date,
    product_id,
    {{ measures([
        'events', 'views', 'carts', 'purchases', 'users', 'clicks', 'checkouts', 'revenue', 'checkout_amount',
        'purchases_per_view'
    ]) }}
from {{ events_of_affected_days() }}
where product_id is not null
group by reporting_date, product_id
