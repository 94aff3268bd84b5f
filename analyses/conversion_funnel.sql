-- Distinct people who view a product, of these those who then put one into the cart, and of these those who then buy
-- one: per day and category, per category, or over the whole period. Within a row a person counts once, and all steps
-- are of that day and category. A category is one however its letters are written.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set per = param('per', 'day_and_category', ['day_and_category', 'category', 'period']) %}

with events as (
    select
        case when {{ per }} = 'day_and_category' then reporting_date end as reporting_date,
        case when {{ per }} in ('day_and_category', 'category') then lower(category_code) end as category,
        user_id,
        event_type,
        event_at
    from {{ ref('int_events_reported') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and event_at >= {{ start_time }} and event_at < {{ end_time }}
        and event_type in ('view', 'cart', 'purchase')
        and user_id is not null and ({{ per }} = 'period' or category_code is not null)
        and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
        and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
        and (lower({{ product_id }}) = 'all' or product_id = {{ product_id }})
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
order by reporting_date desc, case when {{ per }} = 'category' then count(viewed_at) end desc, category
