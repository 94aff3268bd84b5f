-- The best-selling products, of one brand, category and product or of all.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set sort = param('sort', 'purchases', ['purchases', 'revenue', 'carts', 'views', 'users']) %}
{%- set limit = param('limit', 10, 'integer') %}

with products as (
    select
        product_id,
        max(brand) as brand,
        max(category_code) as category,
        {{ measures(['views', 'carts', 'purchases', 'users', 'revenue']) }}
    from {{ ref('fct_events') }}
    where {{ in_period(start_time, end_time) }}
        and product_id is not null
        and {{ of_products(brand, category, product_id) }}
    group by product_id
)

select
    products.product_id,
    names.name as product_name,
    products.brand,
    products.category,
    products.views,
    products.carts,
    products.purchases,
    products.users,
    products.revenue
from products
left join {{ ref('dim_products_history') }} as names on products.product_id = names.product_id and names.is_current
order by
    {{ column_named(sort, [
        'products.purchases', 'products.revenue', 'products.carts', 'products.views', 'products.users'
    ]) }} desc,
    products.purchases desc, products.revenue desc, products.product_id
limit {{ limit }}
