-- Events by hour, of one brand, category and product or of all. From the facts: the hourly mart has no brand.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}

select
    reporting_hour_at,
    count(*) as events,
    count(case when event_type = 'view' then 1 end) as views,
    count(case when event_type = 'cart' then 1 end) as carts,
    count(case when event_type = 'purchase' then 1 end) as purchases
from {{ ref('int_events_reported') }}
where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
    and event_at >= {{ start_time }} and event_at < {{ end_time }}
    and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
    and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
    and (lower({{ product_id }}) = 'all' or product_id = {{ product_id }})
group by reporting_hour_at
order by reporting_hour_at desc
