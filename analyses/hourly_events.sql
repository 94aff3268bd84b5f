-- Key figures of the shop and the website by hour.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}

select
    reporting_hour_at,
    events,
    users,
    views,
    carts,
    purchases,
    page_views,
    clicks,
    checkouts,
    revenue,
    checkout_amount
from {{ ref('agg_events_hourly') }}
where reporting_date between {{ start_date }} and {{ end_date }}
order by reporting_hour_at desc
