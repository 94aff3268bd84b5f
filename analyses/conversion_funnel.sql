-- Distinct people who view a product, then add one to the cart, then buy one: per day and category, per category, or
-- over the whole period. A row counts each person once, and only steps on its day and in its category. Codes that
-- differ only in case are one category.
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
    where {{ in_period(start_time, end_time) }}
        and event_type in ('view', 'cart', 'purchase')
        and user_id is not null and ({{ per }} = 'period' or category_code is not null)
        and {{ of_products(brand, category, product_id) }}
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
    count(carted_at) as users_with_cart,
    count(purchased_at) as buyers,
    {{ ratio('count(carted_at)', 'count(viewed_at)') }} as users_with_cart_per_viewer,
    {{ ratio('count(purchased_at)', 'count(carted_at)') }} as buyers_per_user_with_cart,
    {{ ratio('count(purchased_at)', 'count(viewed_at)') }} as buyers_per_viewer
from visitors
group by reporting_date, category
order by reporting_date desc, case when {{ per }} = 'category' then count(viewed_at) end desc, category
