-- The newest events. On BigQuery, give a start_time: without one, every partition is read.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set event_type = param('event_type', 'all', 'string') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set limit = param('limit', 20, 'integer') %}

-- the limit comes first, so that product names are looked up for these events only
with newest as (
    select *
    from {{ ref('fct_events') }}
    where {{ in_period(start_time, end_time) }}
        and (lower({{ event_type }}) = 'all' or event_type = lower({{ event_type }}))
        and {{ of_products(brand, category, product_id) }}
    order by event_at desc, event_key
    limit {{ limit }}
)

select
    newest.event_at,
    newest.event_type,
    newest.stream,
    newest.user_id,
    newest.product_id,
    products.name as product_name,
    newest.post_id,
    newest.page_title,
    newest.brand,
    newest.category_code as category,
    newest.price,
    newest.total_amount,
    newest.country,
    newest.landed_at
from newest
left join {{ ref('dim_products_history') }} as products
    on newest.product_id = products.product_id and products.is_current
order by newest.event_at desc, newest.event_key
