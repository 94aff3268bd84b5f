-- One row a local hour: exactly the days that new events touch are counted again from the facts.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'reporting_hour_at'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'}
) }}
{%- set dates = new_reporting_dates(ref('int_accepted_events')) %}

with events as (
    select * from {{ ref('int_events_reported') }}
    where {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ in_reporting_dates(dates) }}
    {% endif %}
)

select
    reporting_date,
    reporting_hour_at,
    count(*) as events,
    count(case when event_type = 'view' then 1 end) as views,
    count(case when event_type = 'cart' then 1 end) as carts,
    count(case when event_type = 'purchase' then 1 end) as purchases,
    count(distinct user_id) as users,
    count(case when event_type = 'page_view' then 1 end) as page_views,
    count(case when event_type = 'click' then 1 end) as clicks,
    count(case when event_type = 'checkout' then 1 end) as checkouts,
    {{ sum_of_amounts("case when event_type = 'purchase' then price end") }} as revenue,
    {{ sum_of_amounts('total_amount') }} as checkout_amount
from events
group by reporting_date, reporting_hour_at
