-- The marts written by hand for one engine and one run, with which benchmarks/first_build.py compares dbt's models.
-- Without dead letters, accounting, tests and increments; histories have only the tombstone rules that the rows need.
-- `raw` is attached; marts are tables of this database, and what the facts are made from is temporary.
set TimeZone = 'UTC';

create macro is_object(text, payload) as
    octet_length(encode(text)) = octet_length(payload) and json_valid(text) and starts_with(ltrim(text), '{');
create macro instant(text) as timezone('UTC', try_cast(text as timestamptz));
create macro amount(text) as try_cast(nullif(text, '') as decimal(18, 4));
create macro plausible(event_at, published_at) as
    event_at >= timestamp '2000-01-01' and event_at < timestamp '9999-01-01' and event_at <= published_at + interval 1 day;

create macro param(params, text, name) as case
    when params is null then json_extract_string(text, '$.event_params.' || name)
    else list_transform(
        list_filter(params, lambda entry: entry.key = name),
        lambda entry: coalesce(entry.value.string_value, entry.value.int_value, entry.value.double_value)
    )[1]
end;

create temp table clicks as
with parsed as materialized (
    select *, json_transform(text, '{"click_id": "VARCHAR", "user_id": "VARCHAR", "product_id": "VARCHAR",
        "price": "VARCHAR", "url": "VARCHAR", "datetime_occured": "VARCHAR"}') as body
    from (select *, decode(payload, 'ignore') as text from raw.raw.clicks)
    where is_object(text, payload)
)

select
    'clicks' as stream, message_id, landed_at, published_at, body.click_id as event_id, 'click' as event_type,
    instant(body.datetime_occured) as event_at, nullif(body.user_id, '') as user_id,
    nullif(body.product_id, '') as product_id, amount(body.price) as price, nullif(body.url, '') as url,
    nullif(body.price, '') as price_text
from parsed
where event_id != '' and plausible(event_at, published_at) and user_id is not null and product_id is not null
    and (price_text is null or price is not null);

create temp table checkouts as
with parsed as materialized (
    select *, json_transform(text, '{"checkout_id": "VARCHAR", "user_id": "VARCHAR", "product_id": "VARCHAR",
        "total_amount": "VARCHAR", "datetime_occured": "VARCHAR"}') as body
    from (select *, decode(payload, 'ignore') as text from raw.raw.checkouts)
    where is_object(text, payload)
)

select
    'checkouts' as stream, message_id, landed_at, published_at, body.checkout_id as event_id,
    'checkout' as event_type, instant(body.datetime_occured) as event_at, nullif(body.user_id, '') as user_id,
    nullif(body.product_id, '') as product_id, amount(body.total_amount) as total_amount,
    nullif(body.total_amount, '') as amount_text
from parsed
where event_id != '' and plausible(event_at, published_at) and user_id is not null and product_id is not null
    and (amount_text is null or total_amount is not null);

create temp table post_events as
with parsed as materialized (
    select *, json_transform(text, '{"event_id": "VARCHAR", "user_id": "VARCHAR", "post_id": "VARCHAR",
        "created_at": "VARCHAR", "event_type": "VARCHAR"}') as body
    from (select *, decode(payload, 'ignore') as text from raw.raw.post_events)
    where is_object(text, payload)
)

select
    'post_events' as stream, message_id, landed_at, published_at, body.event_id as event_id,
    case body.event_type when 'view' then 'post_view' when 'like' then 'post_like' end as event_type,
    instant(body.created_at) as event_at, nullif(body.user_id, '') as user_id, nullif(body.post_id, '') as post_id
from parsed
where event_id != '' and plausible(event_at, published_at) and user_id is not null and post_id is not null
    and event_type is not null;

create temp table web_events as
with parsed as materialized (
    select *, json_transform(text, '{"event_id": "VARCHAR", "user_id": "VARCHAR", "event": "VARCHAR",
        "product": "VARCHAR", "browser": "VARCHAR", "country": "VARCHAR", "OS": "VARCHAR", "city": "VARCHAR",
        "timestamp": "VARCHAR", "price": "VARCHAR"}') as body
    from (select *, decode(payload, 'ignore') as text from raw.raw.web_events)
    where is_object(text, payload)
)

select
    'web_events' as stream, message_id, landed_at, published_at,
    coalesce(nullif(body.event_id, ''), message_id) as event_id,
    case body.event when 'sale' then 'purchase' else body.event end as event_type,
    instant(body.timestamp) as event_at, nullif(body.user_id, '') as user_id, nullif(body.product, '') as product_id,
    amount(body.price) as price, nullif(body.country, '') as country, nullif(body.city, '') as city,
    nullif(body.browser, '') as browser, nullif(body.os, '') as os, nullif(body.price, '') as price_text
from parsed
where event_type in ('view', 'cart', 'purchase') and plausible(event_at, published_at) and product_id is not null
    and (price_text is null or price is not null);

create temp table ecom_events as
with parsed as materialized (
    select *, json_transform(text, '{"event_time": "VARCHAR", "event_type": "VARCHAR", "product_id": "VARCHAR",
        "category_id": "VARCHAR", "category_code": "VARCHAR", "brand": "VARCHAR", "price": "VARCHAR",
        "user_id": "VARCHAR", "user_session": "VARCHAR"}') as body
    from (select *, decode(payload, 'ignore') as text from raw.raw.ecom_events)
    where is_object(text, payload)
)

select
    'ecom_events' as stream, message_id, landed_at, published_at, concat_ws('|',
        body.event_time, body.event_type, body.product_id, body.category_id, body.category_code, body.brand,
        body.price, body.user_id, body.user_session
    ) as event_id,
    body.event_type as event_type, instant(body.event_time) as event_at,
    nullif(nullif(body.user_id, ''), 'null') as user_id,
    nullif(nullif(body.user_session, ''), 'null') as source_session_id,
    nullif(nullif(body.product_id, ''), 'null') as product_id,
    nullif(nullif(body.category_code, ''), 'null') as category_code, nullif(nullif(body.brand, ''), 'null') as brand,
    nullif(nullif(body.price, ''), 'null') as price_text, amount(nullif(body.price, 'null')) as price
from parsed
where plausible(event_at, published_at) and product_id is not null
    and event_type in ('view', 'cart', 'purchase', 'remove_from_cart') and (price_text is null or price is not null);

create temp table page_views as
with parsed as materialized (
    select *, json_transform(text, '{"event_id": "VARCHAR", "session_id": "VARCHAR", "page_title": "VARCHAR",
        "page_id": "VARCHAR", "account_number": "VARCHAR", "user_id": "VARCHAR", "user_pseudo_id": "VARCHAR",
        "ga_event_dtm": "VARCHAR", "event_timestamp_ms": "VARCHAR", "timestamp_ms": "VARCHAR",
        "event_timestamp": "VARCHAR", "event_name": "VARCHAR", "event_params": [{"key": "VARCHAR", "value":
            {"string_value": "VARCHAR", "int_value": "VARCHAR", "double_value": "VARCHAR"}}]}') as body
    from (select *, decode(payload, 'ignore') as text from raw.raw.page_views)
    where is_object(text, payload)
),

with_params as materialized (
    -- the parameters are a list, or in an older body an object
    select *, {
        'page_title': param(body.event_params, text, 'page_title'),
        'page_location': param(body.event_params, text, 'page_location'),
        'traffic_source': param(body.event_params, text, 'traffic_source'),
        'engaged_time': param(body.event_params, text, 'engaged_time'),
        'ga_session_id': param(body.event_params, text, 'ga_session_id'),
        'test_event': param(body.event_params, text, 'test_event')
    } as params
    from parsed
),

renamed as (
    select
        'page_views' as stream, message_id, landed_at, published_at, body,
        case
            when body.ga_event_dtm is not null then instant(body.ga_event_dtm)
            when coalesce(body.event_timestamp_ms, body.timestamp_ms) is not null
                then make_timestamp(try_cast(coalesce(body.event_timestamp_ms, body.timestamp_ms) as bigint) * 1000)
            else make_timestamp(try_cast(body.event_timestamp as bigint))
        end as event_at,
        nullif(body.user_id, '') as user_id,
        coalesce(
            nullif(body.session_id, ''), body.user_pseudo_id || '.' || params.ga_session_id,
            case when body.page_id is not null then nullif(body.user_id, '') end
        ) as source_session_id,
        coalesce(nullif(body.page_title, ''), nullif(body.page_id, ''), nullif(params.page_title, '')) as page_title,
        params.page_location as url, params.engaged_time as engaged_text,
        amount(params.engaged_time) as engaged_seconds, nullif(body.account_number, '') as account_number,
        params.traffic_source as traffic_source, params.test_event as test_event
    from with_params
)

select
    * exclude (body, engaged_text, test_event), 'page_view' as event_type,
    coalesce(
        nullif(body.event_id, ''), concat_ws('|', source_session_id, event_at, page_title, body.user_pseudo_id)
    ) as event_id
from renamed
where source_session_id is not null and page_title is not null and plausible(event_at, published_at)
    and coalesce(body.event_name, 'page_view') = 'page_view'
    and coalesce(lower(test_event) not in ('true', '1'), true)
    and (engaged_text is null or engaged_seconds between 0 and 999999999999);

create table fct_events as
with events as (
    select *, cast(event_at as date) as event_date
    from (
        select * exclude (price_text) from clicks
        union all by name select * exclude (amount_text) from checkouts
        union all by name select * from post_events
        union all by name select * exclude (price_text) from web_events
        union all by name select * exclude (price_text) from ecom_events
        union all by name select * from page_views
    )
),

-- nearly all events come once: to rank the others alone takes half the time
copied as (select stream, event_id, event_date from events group by all having count(*) > 1)

select * from events
anti join copied using (stream, event_id, event_date)
union all
select * from events
semi join copied using (stream, event_id, event_date)
qualify row_number() over (partition by stream, event_id, event_date order by landed_at, message_id) = 1;

create table fct_page_views as
with numbered as (
    select *, count(*) filter (gap is null or gap > interval 60 second) over (
        partition by source_session_id order by event_at, event_id rows unbounded preceding
    ) as session_number
    from (
        select *, event_at - lag(event_at) over (partition by source_session_id order by event_at, event_id) as gap
        from fct_events
        where stream = 'page_views'
    )
)

select
    event_id, source_session_id, user_id, account_number, traffic_source, page_title, event_at, event_date, message_id,
    landed_at, row_number() over page_order as sequence_number, lag(event_at) over page_order as previous_event_at,
    lead(event_at) over page_order as next_event_at,
    coalesce(epoch_us(next_event_at - event_at) / 1000000, engaged_seconds) as time_on_page_seconds,
    first_value(event_id) over whole_session as session_id, min(event_at) over whole_session as session_started_at,
    max(event_at) over whole_session as session_ended_at, count(*) over whole_session as session_page_views,
    first_value(page_title) over whole_session as entry_page_title,
    last_value(page_title) over whole_session as exit_page_title
from numbered
window
    page_order as (partition by source_session_id, session_number order by event_at, event_id),
    whole_session as (
        partition by source_session_id, session_number order by event_at, event_id
        rows between unbounded preceding and unbounded following
    );

create table fct_session_event_sequence as
select
    event_id, source_session_id, user_id, product_id, event_type, event_at, event_date,
    row_number() over event_order as session_event_number,
    event_at - lag(event_at) over event_order as since_previous, lag(event_type) over event_order as previous_event_type,
    min(event_at) over whole_session as session_started_at, max(event_at) over whole_session as session_ended_at
from fct_events
where stream = 'ecom_events' and source_session_id is not null
window
    event_order as (partition by source_session_id order by event_at, event_id),
    whole_session as (partition by source_session_id);

create table fct_checkout_attribution as
with matched as (
    select checkouts.event_id, checkouts.event_date, min_by(clicks.event_id, (clicks.event_at, clicks.event_id)) as first_click_id,
        min(clicks.event_at) as first_click_at, min_by(clicks.url, (clicks.event_at, clicks.event_id)) as first_click_url,
        count(*) as clicks_in_window
    from fct_events as checkouts
    inner join fct_events as clicks
        on checkouts.user_id = clicks.user_id and checkouts.product_id = clicks.product_id
        and clicks.event_at between checkouts.event_at - interval 1 hour and checkouts.event_at
    where checkouts.stream = 'checkouts' and clicks.stream = 'clicks'
    group by all
)

select events.event_id, events.event_at, events.event_date, events.user_id, events.product_id, events.total_amount,
    matched.first_click_id, matched.first_click_at, matched.first_click_url, coalesce(matched.clicks_in_window, 0) as clicks_in_window
from fct_events as events
left join matched on events.event_id = matched.event_id and events.event_date = matched.event_date
where events.stream = 'checkouts';

create table agg_events_daily as
select event_date, count(*) as events, count(*) filter (event_type = 'view') as views,
    count(*) filter (event_type = 'cart') as carts, count(*) filter (event_type = 'purchase') as purchases,
    count(distinct user_id) as users, sum(price) filter (event_type = 'purchase') as revenue,
    sum(total_amount) as checkout_amount
from fct_events group by all;

create table agg_events_hourly as
select event_date, date_trunc('hour', event_at) as hour_at, count(*) as events,
    count(*) filter (event_type = 'view') as views, count(*) filter (event_type = 'cart') as carts,
    count(*) filter (event_type = 'purchase') as purchases, count(distinct user_id) as users,
    sum(price) filter (event_type = 'purchase') as revenue, sum(total_amount) as checkout_amount
from fct_events group by all;

create table agg_product_events_hourly as
select event_date, date_trunc('hour', event_at) as hour_at, product_id, count(*) as events,
    count(*) filter (event_type = 'view') as views, count(*) filter (event_type = 'cart') as carts,
    count(*) filter (event_type = 'purchase') as purchases, count(distinct user_id) as users,
    sum(price) filter (event_type = 'purchase') as revenue
from fct_events where product_id is not null group by all;

create table agg_product_performance_daily as
select event_date, product_id, count(*) as events, count(*) filter (event_type = 'view') as views,
    count(*) filter (event_type = 'cart') as carts, count(*) filter (event_type = 'purchase') as purchases,
    count(distinct user_id) as users, count(*) filter (event_type = 'click') as clicks,
    count(*) filter (event_type = 'checkout') as checkouts, sum(price) filter (event_type = 'purchase') as revenue,
    sum(total_amount) as checkout_amount
from fct_events where product_id is not null group by all;

create table agg_category_performance_daily as
select event_date, category_code, count(*) as events, count(*) filter (event_type = 'view') as views,
    count(*) filter (event_type = 'cart') as carts, count(*) filter (event_type = 'purchase') as purchases,
    count(distinct user_id) as users, sum(price) filter (event_type = 'purchase') as revenue
from fct_events where category_code is not null group by all;

create table agg_post_metrics_daily as
select event_date, post_id, count(distinct user_id) filter (event_type = 'post_view') as views,
    count(*) filter (event_type = 'post_like') as likes
from fct_events where post_id is not null group by all;

create table agg_user_metrics_daily as
select events.event_date, events.user_id, any_value(events.events) as events, any_value(events.likes_given) as likes_given,
    any_value(events.posts_viewed) as posts_viewed, count(sessions.event_id) as sessions
from (
    select event_date, user_id, count(*) as events, count(*) filter (event_type = 'post_like') as likes_given,
        count(distinct post_id) filter (event_type = 'post_view') as posts_viewed
    from fct_events where user_id is not null group by all
) as events
left join (select * from fct_page_views where sequence_number = 1) as sessions
    on events.event_date = sessions.event_date and events.user_id = sessions.user_id
group by events.event_date, events.user_id;

create table agg_arrival_lateness_daily as
select event_date, stream, count(*) as events, quantile_disc(published_at - event_at, 0.5) as p50,
    quantile_disc(published_at - event_at, 0.95) as p95, max(published_at - event_at) as most,
    avg(cast(published_at - event_at > interval 1 hour as integer)) as over_an_hour,
    avg(cast(published_at - event_at > interval 1 day as integer)) as over_a_day
from fct_events group by all;
