-- What happened to each product: one row per product and event type.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set limit = param('limit', 100, 'integer') %}

select
    product_id,
    event_type,
    count(*) as events,
    count(distinct user_id) as users,
    min(event_at) as first_event_at,
    max(event_at) as last_event_at
from {{ ref('fct_events') }}
where {{ in_period(start_time, end_time) }}
    and product_id is not null
    and {{ of_products(brand, category, product_id) }}
group by product_id, event_type
order by events desc, product_id, event_type
limit {{ limit }}
