-- The best products, of one brand and category or of all.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
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
    group by product_id
)

select
    product_id,
    brand,
    category,
    views,
    carts,
    purchases,
    users,
    revenue
from products
order by
    case {{ sort }}
        when 'purchases' then purchases
        when 'revenue' then revenue
        when 'carts' then carts
        when 'views' then views
        when 'users' then users
    end desc,
    purchases desc, revenue desc, product_id
limit {{ limit }}
