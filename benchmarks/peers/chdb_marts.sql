-- The marts of benchmarks/floor.sql written by hand for ClickHouse and one run. The tables raw_<stream> exist; each
-- statement runs alone. Rows and values are those of floor.sql, in ClickHouse's style: a missing text is '', an interval
-- is a number of microseconds, and the events of a stream are inserted directly into fct_events.
--
-- A message is parsed once, by one JSONExtract into a named tuple. simdjson rejects invalid UTF-8 and JSON while it
-- parses: such a message has no fields, and so lacks the required ones. Only a list must be rejected separately, since
-- a tuple takes its values by position.
create or replace function is_object as (payload) -> startsWith(trimLeft(payload), '{');
-- 1970, which is not plausible, if the text is not a time; a plain number would be read as a Unix time
create or replace function instant as (text) -> parseDateTime64BestEffortOrZero(
    if(substring(text, 5, 1) in ('-', '/'), text, ''), 6, 'UTC'
);
create or replace function unix_micros as (text, factor) -> fromUnixTimestamp64Micro(toInt64OrZero(text) * factor, 'UTC');
create or replace function amount as (text) -> toDecimal64OrNull(text, 4);
create or replace function plausible as (event_at, published_at) ->
    event_at >= toDateTime64('2000-01-01', 6, 'UTC') and event_at <= published_at + toIntervalDay(1);
create or replace function known as (text) -> if(text = 'null', '', ifNull(text, ''));

-- Sorted like the windows over sessions, which then need not sort.
create table fct_events (
    stream LowCardinality(String),
    message_id String,
    landed_at DateTime64(6, 'UTC'),
    published_at DateTime64(6, 'UTC'),
    event_id String,
    event_type LowCardinality(String),
    event_at DateTime64(6, 'UTC'),
    event_date Date,
    user_id String,
    product_id String,
    price Nullable(Decimal(18, 4)),
    url String,
    total_amount Nullable(Decimal(18, 4)),
    post_id String,
    country LowCardinality(String),
    city LowCardinality(String),
    browser LowCardinality(String),
    os LowCardinality(String),
    source_session_id String,
    category_code LowCardinality(String),
    brand LowCardinality(String),
    page_title String,
    engaged_seconds Nullable(Decimal(18, 4)),
    account_number String,
    traffic_source LowCardinality(String)
)
engine = MergeTree
order by (stream, source_session_id, event_at, event_id);

insert into fct_events (
    stream, message_id, landed_at, published_at, event_id, event_type, event_at, event_date, user_id, product_id, price,
    url
)
with JSONExtract(assumeNotNull(payload), 'Tuple(click_id String, user_id String, product_id String, price String,
    url String, datetime_occured String)') as body
select
    'clicks', message_id, landed_at, published_at, body.click_id as event_id, 'click',
    instant(body.datetime_occured) as event_at, toDate(event_at) as event_date, body.user_id, body.product_id,
    amount(body.price) as price, body.url
from raw_clicks
where is_object(assumeNotNull(payload)) and event_id != '' and plausible(event_at, published_at)
    and body.user_id != '' and body.product_id != '' and (body.price = '' or price is not null)
order by landed_at, message_id
limit 1 by event_id, event_date;

insert into fct_events (
    stream, message_id, landed_at, published_at, event_id, event_type, event_at, event_date, user_id, product_id,
    total_amount
)
with JSONExtract(assumeNotNull(payload), 'Tuple(checkout_id String, user_id String, product_id String,
    total_amount String, datetime_occured String)') as body
select
    'checkouts', message_id, landed_at, published_at, body.checkout_id as event_id, 'checkout',
    instant(body.datetime_occured) as event_at, toDate(event_at) as event_date, body.user_id, body.product_id,
    amount(body.total_amount) as total_amount
from raw_checkouts
where is_object(assumeNotNull(payload)) and event_id != '' and plausible(event_at, published_at)
    and body.user_id != '' and body.product_id != '' and (body.total_amount = '' or total_amount is not null)
order by landed_at, message_id
limit 1 by event_id, event_date;

insert into fct_events (
    stream, message_id, landed_at, published_at, event_id, event_type, event_at, event_date, user_id, post_id
)
with JSONExtract(assumeNotNull(payload), 'Tuple(event_id String, user_id String, post_id String, created_at String,
    event_type String)') as body
select
    'post_events', message_id, landed_at, published_at, body.event_id as event_id,
    multiIf(body.event_type = 'view', 'post_view', body.event_type = 'like', 'post_like', '') as event_type,
    instant(body.created_at) as event_at, toDate(event_at) as event_date, body.user_id, body.post_id
from raw_post_events
where is_object(assumeNotNull(payload)) and event_id != '' and plausible(event_at, published_at)
    and body.user_id != '' and body.post_id != '' and event_type != ''
order by landed_at, message_id
limit 1 by event_id, event_date;

insert into fct_events (
    stream, message_id, landed_at, published_at, event_id, event_type, event_at, event_date, user_id, product_id, price,
    country, city, browser, os
)
with JSONExtract(assumeNotNull(payload), 'Tuple(event_id String, user_id String, event String, product String,
    browser String, country String, OS String, city String, timestamp String, price String)') as body
select
    'web_events', message_id, landed_at, published_at, if(body.event_id = '', message_id, body.event_id) as event_id,
    if(body.event = 'sale', 'purchase', body.event) as event_type, instant(body.timestamp) as event_at,
    toDate(event_at) as event_date, body.user_id, body.product, amount(body.price) as price, body.country, body.city,
    body.browser, body.OS
from raw_web_events
where is_object(assumeNotNull(payload)) and event_type in ('view', 'cart', 'purchase')
    and plausible(event_at, published_at) and body.product != '' and (body.price = '' or price is not null)
order by landed_at, message_id
limit 1 by event_id, event_date
-- else the condition is moved to PREWHERE, and these long messages are parsed once for it and once more for the row
settings optimize_move_to_prewhere = 0;

insert into fct_events (
    stream, message_id, landed_at, published_at, event_id, event_type, event_at, event_date, user_id,
    source_session_id, product_id, category_code, brand, price
)
with JSONExtract(assumeNotNull(payload), 'Tuple(event_time Nullable(String), event_type Nullable(String),
    product_id Nullable(String), category_id Nullable(String), category_code Nullable(String), brand Nullable(String),
    price Nullable(String), user_id Nullable(String), user_session Nullable(String))') as body
select
    'ecom_events', message_id, landed_at, published_at,
    -- without those that are null
    arrayStringConcat([
        body.event_time, body.event_type, body.product_id, body.category_id, body.category_code, body.brand,
        body.price, body.user_id, body.user_session
    ], '|') as event_id,
    ifNull(body.event_type, '') as event_type, instant(ifNull(body.event_time, '')) as event_at,
    toDate(event_at) as event_date, known(body.user_id), known(body.user_session), known(body.product_id) as product_id,
    known(body.category_code), known(body.brand), amount(known(body.price)) as price
from raw_ecom_events
where is_object(assumeNotNull(payload)) and plausible(event_at, published_at) and product_id != ''
    and event_type in ('view', 'cart', 'purchase', 'remove_from_cart') and (known(body.price) = '' or price is not null)
order by landed_at, message_id
limit 1 by event_id, event_date;

insert into fct_events (
    stream, message_id, landed_at, published_at, event_id, event_type, event_at, event_date, user_id,
    source_session_id, page_title, url, engaged_seconds, account_number, traffic_source
)
with
    JSONExtract(assumeNotNull(payload), 'Tuple(event_id String, session_id String, page_title String,
        page_id Nullable(String), account_number String, user_id String, user_pseudo_id Nullable(String),
        ga_event_dtm Nullable(String), event_timestamp_ms Nullable(String), timestamp_ms Nullable(String),
        event_timestamp String, event_name Nullable(String), event_params Variant(
            Array(Tuple(key String, value Tuple(
                string_value Nullable(String), int_value Nullable(String), double_value Nullable(String)
            ))),
            Map(String, Nullable(String))
        ))') as body,
    -- the parameters are a list, or in an older body an object
    variantElement(body.event_params, 'Array(Tuple(key String, value Tuple(string_value Nullable(String),
        int_value Nullable(String), double_value Nullable(String))))') as listed,
    variantElement(body.event_params, 'Map(String, Nullable(String))') as mapped,
    arrayConcat(listed.key, mapKeys(mapped)) as names,
    arrayConcat(
        arrayMap(value -> coalesce(value.string_value, value.int_value, value.double_value), listed.value),
        mapValues(mapped)
    ) as texts,
    -- the first of the name, null when there is none
    texts[indexOf(names, 'engaged_time')] as engaged_text,
    coalesce(body.event_timestamp_ms, body.timestamp_ms) as millis
select
    'page_views', message_id, landed_at, published_at,
    if(body.event_id != '', body.event_id, concat(
        source_session_id, '|', toString(event_at), '|', page_title, ifNull('|' || body.user_pseudo_id, '')
    )) as event_id,
    'page_view',
    multiIf(
        body.ga_event_dtm is not null, instant(ifNull(body.ga_event_dtm, '')),
        millis is not null, unix_micros(ifNull(millis, ''), 1000),
        unix_micros(body.event_timestamp, 1)
    ) as event_at,
    toDate(event_at) as event_date, body.user_id,
    multiIf(
        body.session_id != '', body.session_id,
        body.user_pseudo_id is not null and has(names, 'ga_session_id'),
        ifNull(body.user_pseudo_id || '.' || texts[indexOf(names, 'ga_session_id')], ''),
        body.page_id is not null, body.user_id,
        ''
    ) as source_session_id,
    coalesce(
        nullIf(body.page_title, ''), nullIf(body.page_id, ''), texts[indexOf(names, 'page_title')], ''
    ) as page_title,
    ifNull(texts[indexOf(names, 'page_location')], ''), amount(engaged_text) as engaged_seconds, body.account_number,
    ifNull(texts[indexOf(names, 'traffic_source')], '')
from raw_page_views
where is_object(assumeNotNull(payload)) and source_session_id != '' and page_title != ''
    and plausible(event_at, published_at) and ifNull(body.event_name, 'page_view') = 'page_view'
    and lower(ifNull(texts[indexOf(names, 'test_event')], '')) not in ('true', '1')
    and (engaged_text is null or engaged_seconds between 0 and 999999999999)
order by landed_at, message_id
limit 1 by event_id, event_date;

create table fct_page_views engine = MergeTree order by (source_session_id, event_at, event_id) as
with numbered as (
    select *, countIf(gap is null or gap > 60000000) over (
        partition by source_session_id order by event_at, event_id rows between unbounded preceding and current row
    ) as session_number
    from (
        select *, dateDiff('microsecond', lagInFrame(toNullable(event_at)) over (
            partition by source_session_id order by event_at, event_id rows between unbounded preceding and current row
        ), event_at) as gap
        from fct_events
        where stream = 'page_views'
    )
)

select
    event_id, source_session_id, user_id, account_number, traffic_source, page_title, event_at, event_date, message_id,
    landed_at, row_number() over page_order as sequence_number,
    lagInFrame(toNullable(event_at)) over whole_session as previous_event_at,
    leadInFrame(toNullable(event_at)) over whole_session as next_event_at,
    coalesce(
        dateDiff('microsecond', event_at, next_event_at) / 1000000, toFloat64(engaged_seconds)
    ) as time_on_page_seconds,
    first_value(event_id) over whole_session as session_id, min(event_at) over whole_session as session_started_at,
    max(event_at) over whole_session as session_ended_at, count() over whole_session as session_page_views,
    first_value(page_title) over whole_session as entry_page_title,
    last_value(page_title) over whole_session as exit_page_title
from numbered
window
    page_order as (partition by source_session_id, session_number order by event_at, event_id),
    whole_session as (
        partition by source_session_id, session_number order by event_at, event_id
        rows between unbounded preceding and unbounded following
    )
-- One thread reads in the order of fct_events and has nothing to sort; two scatter and sort, for twice the CPU.
settings max_threads = 1;

create table fct_session_event_sequence engine = MergeTree order by (source_session_id, event_at, event_id) as
select
    event_id, source_session_id, user_id, product_id, event_type, event_at, event_date,
    row_number() over event_order as session_event_number,
    dateDiff('microsecond', lagInFrame(toNullable(event_at)) over event_order, event_at) as since_previous,
    lagInFrame(toNullable(event_type)) over event_order as previous_event_type,
    min(event_at) over event_order as session_started_at, max(event_at) over event_order as session_ended_at
from fct_events
where stream = 'ecom_events' and source_session_id != ''
window event_order as (
    partition by source_session_id order by event_at, event_id rows between unbounded preceding and unbounded following
);

create table fct_checkout_attribution engine = MergeTree order by (event_date, event_id) as
with matched as (
    select
        checkouts.event_id as event_id, checkouts.event_date as event_date,
        argMin(clicks.event_id, (clicks.event_at, clicks.event_id)) as first_click_id,
        min(clicks.event_at) as first_click_at,
        argMin(clicks.url, (clicks.event_at, clicks.event_id)) as first_click_url,
        count() as clicks_in_window
    from (select * from fct_events where stream = 'clicks') as clicks
    inner join (select * from fct_events where stream = 'checkouts') as checkouts
        on checkouts.user_id = clicks.user_id and checkouts.product_id = clicks.product_id
        and clicks.event_at >= checkouts.event_at - toIntervalHour(1) and clicks.event_at <= checkouts.event_at
    group by all
)

select
    events.event_id as event_id, events.event_at as event_at, events.event_date as event_date,
    events.user_id as user_id, events.product_id as product_id, events.total_amount as total_amount,
    matched.first_click_id as first_click_id,
    if(matched.clicks_in_window = 0, null, matched.first_click_at) as first_click_at,
    matched.first_click_url as first_click_url, matched.clicks_in_window as clicks_in_window
from fct_events as events
left join matched on events.event_id = matched.event_id and events.event_date = matched.event_date
where events.stream = 'checkouts';

create table agg_events_daily engine = MergeTree order by event_date as
select
    event_date, count() as events, countIf(event_type = 'view') as views, countIf(event_type = 'cart') as carts,
    countIf(event_type = 'purchase') as purchases, uniqExactIf(user_id, user_id != '') as users,
    sumIf(price, event_type = 'purchase') as revenue, sum(total_amount) as checkout_amount
from fct_events group by all;

create table agg_events_hourly engine = MergeTree order by hour_at as
select
    event_date, toStartOfHour(event_at) as hour_at, count() as events, countIf(event_type = 'view') as views,
    countIf(event_type = 'cart') as carts, countIf(event_type = 'purchase') as purchases,
    uniqExactIf(user_id, user_id != '') as users, sumIf(price, event_type = 'purchase') as revenue,
    sum(total_amount) as checkout_amount
from fct_events group by all;

create table agg_product_events_hourly engine = MergeTree order by (hour_at, product_id) as
select
    event_date, toStartOfHour(event_at) as hour_at, product_id, count() as events,
    countIf(event_type = 'view') as views, countIf(event_type = 'cart') as carts,
    countIf(event_type = 'purchase') as purchases, uniqExactIf(user_id, user_id != '') as users,
    sumIf(price, event_type = 'purchase') as revenue
from fct_events where product_id != '' group by all;

create table agg_product_performance_daily engine = MergeTree order by (event_date, product_id) as
select
    event_date, product_id, count() as events, countIf(event_type = 'view') as views,
    countIf(event_type = 'cart') as carts, countIf(event_type = 'purchase') as purchases,
    uniqExactIf(user_id, user_id != '') as users, countIf(event_type = 'click') as clicks,
    countIf(event_type = 'checkout') as checkouts, sumIf(price, event_type = 'purchase') as revenue,
    sum(total_amount) as checkout_amount
from fct_events where product_id != '' group by all;

create table agg_category_performance_daily engine = MergeTree order by (event_date, category_code) as
select
    event_date, category_code, count() as events, countIf(event_type = 'view') as views,
    countIf(event_type = 'cart') as carts, countIf(event_type = 'purchase') as purchases,
    uniqExactIf(user_id, user_id != '') as users, sumIf(price, event_type = 'purchase') as revenue
from fct_events where category_code != '' group by all;

create table agg_post_metrics_daily engine = MergeTree order by (event_date, post_id) as
select
    event_date, post_id, uniqExactIf(user_id, event_type = 'post_view') as views,
    countIf(event_type = 'post_like') as likes
from fct_events where post_id != '' group by all;

create table agg_user_metrics_daily engine = MergeTree order by (event_date, user_id) as
select
    events.event_date as event_date, events.user_id as user_id, events.events as events,
    events.likes_given as likes_given, events.posts_viewed as posts_viewed, sessions.sessions as sessions
from (
    select
        event_date, user_id, count() as events, countIf(event_type = 'post_like') as likes_given,
        uniqExactIf(post_id, event_type = 'post_view') as posts_viewed
    from fct_events where user_id != '' group by all
) as events
left join (
    select event_date, user_id, count() as sessions from fct_page_views where sequence_number = 1 group by all
) as sessions on events.event_date = sessions.event_date and events.user_id = sessions.user_id;

create table agg_arrival_lateness_daily engine = MergeTree order by (event_date, stream) as
with dateDiff('microsecond', event_at, published_at) as late
select
    event_date, stream, count() as events,
    -- a weight of one: the only exact quantile that picks the same one of an even number as quantile_disc
    quantileExactWeighted(0.5)(late, 1) as p50, quantileExactWeighted(0.95)(late, 1) as p95, max(late) as most,
    avg(late > 3600000000) as over_an_hour, avg(late > 86400000000) as over_a_day
from fct_events group by all;
