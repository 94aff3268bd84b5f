-- Checkouts by the URL of the first click that led to them. Checkouts that no click led to are one row.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set limit = param('limit', 20, 'integer') %}

select
    first_click_url,
    is_attributed,
    count(*) as checkouts,
    count(distinct user_id) as users,
    {{ sum_of_amounts('total_amount') }} as amount,
    {{ ratio('count(*)', 'sum(count(*)) over ()') }} as share_of_checkouts,
    {{ average('seconds_to_checkout') }} as average_seconds_to_checkout
from {{ ref('fct_checkout_attribution') }}
where {{ in_period(start_time, end_time, 'checkout_at') }}
group by first_click_url, is_attributed
order by checkouts desc, is_attributed desc, first_click_url nulls last
limit {{ limit }}
