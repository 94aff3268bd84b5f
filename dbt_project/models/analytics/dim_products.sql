-- The latest version of each product that is not deleted, with totals over its daily performance.
{{ config(materialized='view') }}

with totals as (
    select
        product_id,
        sum(views) as views,
        sum(carts) as carts,
        sum(purchases) as purchases,
        sum(revenue) as revenue
    from {{ ref('agg_product_performance_daily') }}
    group by product_id
)

select
    products.product_id,
    products.name,
    products.category_code,
    products.category,
    products.model,
    products.brand,
    products.price,
    products.created_at,
    products.updated_at,
    cast(coalesce(totals.views, 0) as bigint) as views,
    cast(coalesce(totals.carts, 0) as bigint) as carts,
    cast(coalesce(totals.purchases, 0) as bigint) as purchases,
    cast(coalesce(totals.revenue, 0) as numeric(33, 4)) as revenue
from {{ ref('int_products_current') }} as products
left join totals on products.product_id = totals.product_id
