-- Each category day by day. A category is one however its letters are written.
-- From the facts: people who wrote it in two ways on one day are counted once.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}
{%- set category = param('category', 'all', 'string') %}
{%- set limit = param('limit', 1000, 'integer') %}

with events as (
    select reporting_date, lower(category_code) as category, event_type, user_id, price
    from {{ ref('int_events_reported') }}
    -- the reporting date is at most a day after the date in UTC; there is no upper bound, which may be the last date
    where event_date >= cast({{ start_date }} - interval 1 day as date)
        and reporting_date between {{ start_date }} and {{ end_date }}
        and category_code is not null
        and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
)

select
    reporting_date,
    category,
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
order by reporting_date desc, revenue desc, category
limit {{ limit }}
