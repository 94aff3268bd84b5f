-- Key figures of the shop and the website by day.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}

select
    reporting_date,
    events,
    users,
    views,
    carts,
    purchases,
    page_views,
    clicks,
    checkouts,
    revenue,
    checkout_amount,
    {{ ratio('purchases', 'views') }} as purchases_per_view
from {{ ref('agg_events_daily') }}
where reporting_date between {{ start_date }} and {{ end_date }}
order by reporting_date desc
