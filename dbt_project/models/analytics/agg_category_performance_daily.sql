-- One row per category and reporting date. A category is one however its letters are written. It is the one that the
-- event carries: a product that moves later does not rewrite the past.
{{ config(
    materialized='incremental',
    unique_key=['reporting_date', 'category_code'],
    partition_by={'field': 'reporting_date', 'data_type': 'date'},
    cluster_by='category_code'
) }}
{%- set dates = new_reporting_dates(ref('int_accepted_events')) %}

with events as (
    select *, lower(category_code) as category
    from {{ ref('int_events_reported') }}
    where {{ is_in_build() }} and category_code is not null
    {% if is_incremental() %}
        and {{ in_reporting_dates(dates) }}
    {% endif %}
)

select
    reporting_date,
    category as category_code,
    count(*) as events,
    count(case when event_type = 'view' then 1 end) as views,
    count(case when event_type = 'cart' then 1 end) as carts,
    count(case when event_type = 'purchase' then 1 end) as purchases,
    count(distinct user_id) as users,
    {{ sum_of_amounts("case when event_type = 'purchase' then price end") }} as revenue,
    {{ ratio(
        "count(case when event_type = 'purchase' then 1 end)", "count(case when event_type = 'view' then 1 end)"
    ) }}
        as purchases_per_view
from events
group by reporting_date, category
