-- Events of each type, of one brand, category and product or of all.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}

select
    event_type,
    count(*) as events,
    count(distinct user_id) as users,
    count(distinct product_id) as products,
    min(event_at) as first_event_at,
    max(event_at) as last_event_at
from {{ ref('fct_events') }}
where {{ in_period(start_time, end_time) }}
    and {{ of_products(brand, category, product_id) }}
group by event_type
order by events desc, event_type
