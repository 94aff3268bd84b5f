-- Events of each product by hour, of one brand and category or of all.
-- From the facts, because agg_product_events_hourly has no brand, and the period may begin within an hour.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set limit = param('limit', 1000, 'integer') %}

select
    reporting_hour_at,
    product_id,
    {{ measures(['events', 'views', 'carts', 'purchases', 'users', 'revenue']) }}
from {{ ref('int_events_reported') }}
where {{ in_period(start_time, end_time) }}
    and product_id is not null
    and {{ of_products(brand, category, product_id) }}
group by reporting_hour_at, product_id
order by reporting_hour_at desc, events desc, product_id
limit {{ limit }}
