-- Checkouts with their first click and the name of the user at the time. A view, so that a version of the user that
-- arrives late changes the name too.
{{ config(materialized='view', meta={'partitions_of': 'int_checkout_first_clicks'}) }}

select
    checkouts.event_key,
    checkouts.checkout_id,
    checkouts.checkout_at,
    checkouts.event_date,
    checkouts.user_id,
    users.user_name,
    checkouts.product_id,
    checkouts.total_amount,
    checkouts.first_click_id,
    checkouts.first_click_at,
    checkouts.first_click_url,
    checkouts.seconds_to_checkout,
    checkouts.clicks_in_window,
    checkouts.first_click_id is not null as is_attributed
from {{ ref('int_checkout_first_clicks') }} as checkouts
left join {{ ref('dim_users_history') }} as users
    on checkouts.user_id = users.user_id
    and checkouts.checkout_at >= users.valid_from
    and checkouts.checkout_at < users.valid_to
