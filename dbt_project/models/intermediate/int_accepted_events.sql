-- Accepted copies of the events of all streams in one vocabulary; an event that came twice stands here twice.
with web_events as (
    select
        stream, message_id, landed_at, published_at, event_key, event_id, event_type, event_at, event_date,
        user_id, null as source_session_id, product_id, null as post_id, null as page_title, null as category_code,
        null as brand, price, null as total_amount, country, city, browser, os, null as url, null as engaged_seconds,
        null as account_number, null as traffic_source
    from {{ ref('stg_web_events') }}
    where reject_reason is null
),

page_views as (
    select
        stream, message_id, landed_at, published_at, event_key, event_id, 'page_view' as event_type, event_at,
        event_date, user_id, source_session_id, null as product_id, null as post_id, page_title, null as category_code,
        null as brand, null as price, null as total_amount, null as country, null as city, null as browser, null as os,
        url, engaged_seconds, account_number, traffic_source
    from {{ ref('stg_page_views') }}
    where reject_reason is null
),

clicks as (
    select
        stream, message_id, landed_at, published_at, event_key, event_id, 'click' as event_type, event_at, event_date,
        user_id, null as source_session_id, product_id, null as post_id, null as page_title, null as category_code,
        null as brand, price, null as total_amount, null as country, null as city, null as browser, null as os, url,
        null as engaged_seconds, null as account_number, null as traffic_source
    from {{ ref('stg_clicks') }}
    where reject_reason is null
),

checkouts as (
    select
        stream, message_id, landed_at, published_at, event_key, event_id, 'checkout' as event_type, event_at,
        event_date, user_id, null as source_session_id, product_id, null as post_id, null as page_title,
        null as category_code, null as brand, null as price, total_amount, null as country, null as city,
        null as browser, null as os, null as url, null as engaged_seconds, null as account_number,
        null as traffic_source
    from {{ ref('stg_checkouts') }}
    where reject_reason is null
),

ecom_events as (
    select
        stream, message_id, landed_at, published_at, event_key, event_id, event_type, event_at, event_date, user_id,
        source_session_id, product_id, null as post_id, null as page_title, category_code, brand, price,
        null as total_amount, null as country, null as city, null as browser, null as os, null as url,
        null as engaged_seconds, null as account_number, null as traffic_source
    from {{ ref('stg_ecom_events') }}
    where reject_reason is null
),

post_events as (
    select
        stream, message_id, landed_at, published_at, event_key, event_id, event_type, event_at, event_date, user_id,
        null as source_session_id, null as product_id, post_id, null as page_title, null as category_code,
        null as brand, null as price, null as total_amount, null as country, null as city, null as browser, null as os,
        null as url, null as engaged_seconds, null as account_number, null as traffic_source
    from {{ ref('stg_post_events') }}
    where reject_reason is null
)

select * from web_events
union all
select * from page_views
union all
select * from clicks
union all
select * from checkouts
union all
select * from ecom_events
union all
select * from post_events
