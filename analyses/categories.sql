-- The best categories, of one brand or of all. A category is one however its letters are written.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set sort = param('sort', 'revenue', ['revenue', 'purchases', 'carts', 'views', 'users', 'products']) %}
{%- set limit = param('limit', 10, 'integer') %}

with categories as (
    select
        lower(category_code) as category,
        count(distinct product_id) as products,
        count(case when event_type = 'view' then 1 end) as views,
        count(case when event_type = 'cart' then 1 end) as carts,
        count(case when event_type = 'purchase' then 1 end) as purchases,
        count(distinct user_id) as users,
        {{ sum_of_amounts("case when event_type = 'purchase' then price end") }} as revenue
    from {{ ref('fct_events') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and event_at >= {{ start_time }} and event_at < {{ end_time }}
        and category_code is not null
        and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
    group by lower(category_code)
)

select
    category,
    products,
    views,
    carts,
    purchases,
    users,
    revenue
from categories
order by
    case {{ sort }}
        when 'revenue' then revenue
        when 'purchases' then purchases
        when 'carts' then carts
        when 'views' then views
        when 'users' then users
        when 'products' then products
    end desc,
    revenue desc, purchases desc, views desc, category
limit {{ limit }}
