-- The newest events. On BigQuery give a start_time: without one every partition is read.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set event_type = param('event_type', 'all', 'string') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set limit = param('limit', 20, 'integer') %}

select
    event_at,
    event_type,
    stream,
    user_id,
    product_id,
    post_id,
    page_title,
    brand,
    category_code as category,
    price,
    total_amount,
    country,
    landed_at
from {{ ref('fct_events') }}
where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
    and event_at >= {{ start_time }} and event_at < {{ end_time }}
    and (lower({{ event_type }}) = 'all' or event_type = lower({{ event_type }}))
    and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
    and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
order by event_at desc, event_key
limit {{ limit }}
