-- The best products, of one brand, category and product or of all.
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
        count(case when event_type = 'view' then 1 end) as views,
        count(case when event_type = 'cart' then 1 end) as carts,
        count(case when event_type = 'purchase' then 1 end) as purchases,
        count(distinct user_id) as users,
        {{ sum_of_amounts("case when event_type = 'purchase' then price end") }} as revenue
    from {{ ref('fct_events') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and event_at >= {{ start_time }} and event_at < {{ end_time }}
        and product_id is not null
        and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
        and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
        and (lower({{ product_id }}) = 'all' or product_id = {{ product_id }})
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
    case {{ sort }}
        when 'purchases' then products.purchases
        when 'revenue' then products.revenue
        when 'carts' then products.carts
        when 'views' then products.views
        when 'users' then products.users
    end desc,
    products.purchases desc, products.revenue desc, products.product_id
limit {{ limit }}
