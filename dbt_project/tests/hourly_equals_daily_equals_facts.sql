-- Additive measures are equal by hour, by day and in the facts. (Distinct users are not additive.)
{%- set dates = changed_dates(ref('agg_events_daily').identifier) %}
{%- set all_dates = dates is none %}

with daily as (
    select
        reporting_date, events, views, carts, purchases, page_views, clicks, checkouts, revenue, checkout_amount
    from {{ ref('agg_events_daily') }}
    where {{ 'true' if all_dates else in_dates('reporting_date', dates) }}
),

hourly as (
    select
        reporting_date,
        sum(events) as events,
        sum(views) as views,
        sum(carts) as carts,
        sum(purchases) as purchases,
        sum(page_views) as page_views,
        sum(clicks) as clicks,
        sum(checkouts) as checkouts,
        sum(revenue) as revenue,
        sum(checkout_amount) as checkout_amount
    from {{ ref('agg_events_hourly') }}
    where {{ 'true' if all_dates else in_dates('reporting_date', dates) }}
    group by reporting_date
),

facts as (
    select
        reporting_date,
        count(*) as events,
        count(case when event_type = 'view' then 1 end) as views,
        count(case when event_type = 'cart' then 1 end) as carts,
        count(case when event_type = 'purchase' then 1 end) as purchases,
        count(case when event_type = 'page_view' then 1 end) as page_views,
        count(case when event_type = 'click' then 1 end) as clicks,
        count(case when event_type = 'checkout' then 1 end) as checkouts,
        {{ sum_of_amounts("case when event_type = 'purchase' then price end") }} as revenue,
        {{ sum_of_amounts('total_amount') }} as checkout_amount
    from {{ ref('int_events_reported') }}
    where {{ 'true' if all_dates else in_reporting_dates(dates) }}
    group by reporting_date
),

all_counts as (
    select * from daily
    union all
    select * from hourly
    union all
    select * from facts
)

select reporting_date
from all_counts
group by reporting_date
having
    count(*) != 3
    or min(events) != max(events)
    or min(views) != max(views)
    or min(carts) != max(carts)
    or min(purchases) != max(purchases)
    or min(page_views) != max(page_views)
    or min(clicks) != max(clicks)
    or min(checkouts) != max(checkouts)
    or min(revenue) != max(revenue)
    or min(checkout_amount) != max(checkout_amount)
