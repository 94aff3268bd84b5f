-- How many of the people who view products of a category then put one into the cart, and of these then buy, on the
-- same day. A category is one however its letters are written.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}

with events as (
    select reporting_date, lower(category_code) as category, user_id, event_type, event_at
    from {{ ref('int_events_reported') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and event_at >= {{ start_time }} and event_at < {{ end_time }}
        and user_id is not null and category_code is not null
        and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
        and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
),

viewed as (
    select
        *,
        min(case when event_type = 'view' then event_at end)
            over (partition by reporting_date, category, user_id) as viewed_at
    from events
),

carted as (
    select
        *,
        min(case when event_type = 'cart' and event_at >= viewed_at then event_at end)
            over (partition by reporting_date, category, user_id) as carted_at
    from viewed
),

visitors as (
    select
        reporting_date,
        category,
        user_id,
        min(viewed_at) as viewed_at,
        min(carted_at) as carted_at,
        min(case when event_type = 'purchase' and event_at >= carted_at then event_at end) as purchased_at
    from carted
    group by reporting_date, category, user_id
)

select
    reporting_date,
    category,
    count(viewed_at) as viewers,
    count(carted_at) as carters,
    count(purchased_at) as buyers,
    {{ ratio('count(carted_at)', 'count(viewed_at)') }} as carters_per_viewer,
    {{ ratio('count(purchased_at)', 'count(carted_at)') }} as buyers_per_carter,
    {{ ratio('count(purchased_at)', 'count(viewed_at)') }} as buyers_per_viewer
from visitors
group by reporting_date, category
order by reporting_date desc, category
