-- Every checkout with the earliest click of the same user on the same product in the attribution window before it.
-- A new click or checkout touches the checkouts of its user and product within the window; these are attributed again.
{{ config(
    materialized='incremental',
    unique_key='event_key',
    partition_by={'field': 'event_date', 'data_type': 'date'},
    cluster_by='user_id',
    meta={'settings': ['attribution_window_seconds']}
) }}
{%- set window_seconds = var('attribution_window_seconds') %}

{%- set checkout_dates = (
    dates_of_new_events(ref('stg_checkouts'), only='reject_reason is null')
    + dates_of_new_events(ref('stg_clicks'), after=window_seconds, only='reject_reason is null')
) | unique | sort %}
{%- set click_dates = dates_before(checkout_dates, window_seconds) %}

with checkouts as (
    select * from {{ ref('fct_events') }}
    where stream = 'checkouts' and {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ on_dates('event_date', checkout_dates) }}
    {% endif %}
),

clicks as (
    select * from {{ ref('fct_events') }}
    where stream = 'clicks' and {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ on_dates('event_date', click_dates) }}
    {% endif %}
),

{% if is_incremental() %}
new_pairs as (
    select user_id, product_id from {{ ref('stg_checkouts') }}
    where reject_reason is null and {{ is_new() }}
    union distinct
    select user_id, product_id from {{ ref('stg_clicks') }}
    where reject_reason is null and {{ is_new() }}
),
{% endif %}

touched_checkouts as (
    select checkouts.*
    from checkouts
    {% if is_incremental() %}
    inner join new_pairs
        on checkouts.user_id = new_pairs.user_id and checkouts.product_id = new_pairs.product_id
    {% endif %}
),

matched as (
    select
        touched_checkouts.event_key,
        clicks.event_id as click_id,
        clicks.event_at as click_at,
        clicks.url as click_url,
        count(*) over (partition by touched_checkouts.event_key) as clicks_in_window
    from touched_checkouts
    inner join clicks
        on touched_checkouts.user_id = clicks.user_id
        and touched_checkouts.product_id = clicks.product_id
        and clicks.event_at between touched_checkouts.event_at - interval {{ window_seconds }} second
            and touched_checkouts.event_at
    qualify row_number() over (
        partition by touched_checkouts.event_key order by clicks.event_at, clicks.event_id
    ) = 1
)

select
    touched_checkouts.event_key,
    touched_checkouts.event_id as checkout_id,
    touched_checkouts.event_at as checkout_at,
    touched_checkouts.event_date,
    touched_checkouts.user_id,
    touched_checkouts.product_id,
    touched_checkouts.total_amount,
    matched.click_id as first_click_id,
    matched.click_at as first_click_at,
    matched.click_url as first_click_url,
    {{ seconds_between('matched.click_at', 'touched_checkouts.event_at') }} as seconds_to_checkout,
    coalesce(matched.clicks_in_window, 0) as clicks_in_window
from touched_checkouts
left join matched on touched_checkouts.event_key = matched.event_key
