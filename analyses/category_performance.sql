-- Each category by day. Codes that differ only in case are one category.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}
{%- set category = param('category', 'all', 'string') %}
{%- set limit = param('limit', 1000, 'integer') %}

with events as (
    select reporting_date, lower(category_code) as category, event_type, user_id, price
    from {{ ref('int_events_reported') }}
    -- A reporting date is at most a day after the UTC date. There is no upper bound: end_date may be the last date that
    -- the engine knows, to which no day can be added.
    where event_date >= cast({{ start_date }} - interval 1 day as date)
        and reporting_date between {{ start_date }} and {{ end_date }}
        and category_code is not null
        and {{ of_products(category=category) }}
)

select
    reporting_date,
    category,
    {{ measures(['views', 'carts', 'purchases', 'users', 'revenue', 'purchases_per_view']) }}
from events
group by reporting_date, category
order by reporting_date desc, revenue desc, category
limit {{ limit }}
