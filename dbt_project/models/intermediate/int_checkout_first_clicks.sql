-- Every checkout with the earliest click of the same user on the same product in the attribution window before it. A
-- new click or checkout can change the checkouts of its user and product within the window: these are attributed again.
{{ config(
    materialized='incremental',
    unique_key='event_key',
    partition_by={'field': 'event_date', 'data_type': 'date'},
    cluster_by='user_id',
    meta={'settings': ['attribution_window_seconds']}
) }}
{%- set window_seconds = var('attribution_window_seconds') %}

{%- set checkout_dates = (
    new_event_dates(ref('stg_checkouts'), where='reject_reason is null')
    + new_event_dates(ref('stg_clicks'), after=window_seconds, where='reject_reason is null')
) | unique | sort %}
{%- set click_dates = widened_dates(checkout_dates, before=window_seconds) %}

with
{%- if is_incremental() %}
new_pairs as (
    select user_id, product_id from {{ ref('stg_checkouts') }}
    where reject_reason is null and {{ is_new() }}
    union distinct
    select user_id, product_id from {{ ref('stg_clicks') }}
    where reject_reason is null and {{ is_new() }}
),
{%- endif %}

checkouts as (
    select
        events.event_key,
        events.event_id,
        events.event_at,
        events.event_date,
        events.user_id,
        events.product_id,
        events.total_amount
    from {{ ref('fct_events') }} as events
    {% if is_incremental() %}
    inner join new_pairs on events.user_id = new_pairs.user_id and events.product_id = new_pairs.product_id
    {% endif %}
    where events.stream = 'checkouts' and {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ in_dates('events.event_date', checkout_dates) }}
    {% endif %}
),

clicks as (
    select events.event_key, events.event_id, events.event_at, events.user_id, events.product_id, events.url
    from {{ ref('fct_events') }} as events
    {% if is_incremental() %}
    inner join new_pairs on events.user_id = new_pairs.user_id and events.product_id = new_pairs.product_id
    {% endif %}
    where events.stream = 'clicks' and {{ is_in_build() }}
    {% if is_incremental() %}
        and {{ in_dates('events.event_date', click_dates) }}
    {% endif %}
),

-- Clicks and checkouts of a user and product in one list, in which a window function finds the clicks before each
-- checkout: a join would pair every click of a busy user with every checkout. The window finds the number of the first
-- click; its other columns are joined at the end.
numbered_clicks as (
    select
        event_key,
        event_at,
        user_id,
        product_id,
        row_number() over (partition by user_id, product_id order by event_at, event_id) as click_number
    from clicks
),

clicks_and_checkouts as (
    select user_id, product_id, event_key, event_at, click_number from numbered_clicks
    union all
    select user_id, product_id, event_key, event_at, null as click_number from checkouts
),

windowed as (
    select
        *,
        min(click_number) over attribution_window as first_click_number,
        count(click_number) over attribution_window as clicks_in_window
    from clicks_and_checkouts
    window attribution_window as (
        partition by user_id, product_id order by {{ epoch_microseconds('event_at') }}
        range between {{ window_seconds * 1000000 }} preceding and current row
    )
),

attributed as (
    select
        windowed.event_key,
        windowed.clicks_in_window,
        numbered_clicks.event_key as click_key
    from windowed
    left join numbered_clicks
        on windowed.user_id = numbered_clicks.user_id
        and windowed.product_id = numbered_clicks.product_id
        and windowed.first_click_number = numbered_clicks.click_number
    where windowed.click_number is null
)

select
    checkouts.event_key,
    checkouts.event_id as checkout_id,
    checkouts.event_at as checkout_at,
    checkouts.event_date,
    checkouts.user_id,
    checkouts.product_id,
    checkouts.total_amount,
    clicks.event_id as first_click_id,
    clicks.event_at as first_click_at,
    clicks.url as first_click_url,
    {{ seconds_between('clicks.event_at', 'checkouts.event_at') }} as seconds_to_checkout,
    attributed.clicks_in_window
from attributed
inner join checkouts on attributed.event_key = checkouts.event_key
left join clicks on attributed.click_key = clicks.event_key
