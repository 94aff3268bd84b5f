-- Events by hour, of one brand, category and product or of all. From the facts, because agg_events_hourly has no brand.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}

select
    reporting_hour_at,
    {{ measures(['events', 'views', 'carts', 'purchases']) }}
from {{ ref('int_events_reported') }}
where {{ in_period(start_time, end_time) }}
    and {{ of_products(brand, category, product_id) }}
group by reporting_hour_at
order by reporting_hour_at desc
