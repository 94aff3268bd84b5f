-- Checkouts by day, and how many of them a click led to.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}

with checkouts as (
    select {{ reporting_date('checkout_at') }} as reporting_date, is_attributed, total_amount, seconds_to_checkout
    from {{ ref('fct_checkout_attribution') }}
    where {{ in_period(start_time, end_time, 'checkout_at') }}
)

select
    reporting_date,
    count(*) as checkouts,
    count(case when is_attributed then 1 end) as attributed_checkouts,
    {{ ratio('count(case when is_attributed then 1 end)', 'count(*)') }} as attributed_share,
    {{ sum_of_amounts('total_amount') }} as amount,
    {{ sum_of_amounts('case when is_attributed then total_amount end') }} as attributed_amount,
    {{ average('seconds_to_checkout') }} as average_seconds_to_checkout
from checkouts
group by reporting_date
order by reporting_date desc
