-- Five attribution models side by side: ways to divide each checkout among the clicks that led to it. All models divide
-- the same checkouts and amounts exactly: running sums are rounded, not the parts, so the parts add up to the whole.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set half_life_seconds = param('half_life_seconds', 900, 'integer') %}
{%- set limit = param('limit', 20, 'integer') %}

with checkouts as (
    -- a wider type, because an amount times a share has more digits than the amount
    select
        event_key,
        user_id,
        product_id,
        checkout_at,
        cast(coalesce(total_amount, 0) as numeric(33, 4)) as total_amount
    from {{ ref('fct_checkout_attribution') }}
    where {{ in_period(start_time, end_time, 'checkout_at') }}
        and is_attributed
),

click_events as (
    select event_key, event_id, user_id, product_id, event_at, url
    from {{ ref('fct_events') }}
    where event_date
        between cast({{ start_time }} - interval {{ var('attribution_window_seconds') }} second as date)
        and cast({{ end_time }} as date)
        and event_type = 'click'
),

-- The clicks of the same user on the same product in the attribution window, in order. URLs may be long and would be
-- repeated for each checkout and model, so they are joined at the end.
clicks as (
    select
        checkouts.event_key,
        checkouts.total_amount,
        click_events.event_key as click_key,
        click_events.event_at as click_at,
        row_number() over (
            partition by checkouts.event_key order by click_events.event_at, click_events.event_id
        ) as place,
        count(*) over (partition by checkouts.event_key) as clicks,
        max(click_events.event_at) over (partition by checkouts.event_key) as last_click_at
    from checkouts
    inner join click_events
        on checkouts.user_id = click_events.user_id
        and checkouts.product_id = click_events.product_id
        and checkouts.checkout_at >= click_events.event_at
        and click_events.event_at >= checkouts.checkout_at - interval {{ var('attribution_window_seconds') }} second
),

models as (
    select 'first' as model
    union all
    select 'last' as model
    union all
    select 'linear' as model
    union all
    select 'position_based' as model
    union all
    select 'time_decay' as model
),

weights as (
    select
        models.model,
        clicks.*,
        case models.model
            when 'first' then case when clicks.place = 1 then 1 else 0 end
            when 'last' then case when clicks.place = clicks.clicks then 1 else 0 end
            when 'linear' then 1
            -- 40 % each for the first and the last, 20 % for those between
            when 'position_based' then case
                when clicks.clicks <= 2 then 1
                when clicks.place in (1, clicks.clicks) then 0.4
                else 0.2 / (clicks.clicks - 2)
            end
            -- counted back from the last click, whose weight is 1: a short half-life does not make all weights 0
            when 'time_decay' then power(
                0.5, {{ seconds_between('clicks.click_at', 'clicks.last_click_at') }} / {{ half_life_seconds }}
            )
        end as weight
    from clicks
    cross join models
),

-- running share: of this click and those before it
shares as (
    select
        model,
        event_key,
        click_key,
        place,
        total_amount,
        cast(round(
            sum(weight) over (partition by model, event_key order by place rows unbounded preceding)
            / sum(weight) over (partition by model, event_key),
            5
        ) as numeric(18, 5)) as share
    from weights
),

credits as (
    select
        model,
        click_key,
        share - coalesce(lag(share) over clicks_in_order, 0) as checkouts,
        round(total_amount * share, 4) - coalesce(lag(round(total_amount * share, 4)) over clicks_in_order, 0) as amount
    from shares
    window clicks_in_order as (partition by model, event_key order by place)
)

select
    click_events.url,
    count(case when credits.model = 'linear' then 1 end) as clicks,
    sum(case when credits.model = 'first' then credits.checkouts end) as first_checkouts,
    sum(case when credits.model = 'last' then credits.checkouts end) as last_checkouts,
    sum(case when credits.model = 'linear' then credits.checkouts end) as linear_checkouts,
    sum(case when credits.model = 'position_based' then credits.checkouts end) as position_based_checkouts,
    sum(case when credits.model = 'time_decay' then credits.checkouts end) as time_decay_checkouts,
    sum(case when credits.model = 'first' then credits.amount end) as first_amount,
    sum(case when credits.model = 'last' then credits.amount end) as last_amount,
    sum(case when credits.model = 'linear' then credits.amount end) as linear_amount,
    sum(case when credits.model = 'position_based' then credits.amount end) as position_based_amount,
    sum(case when credits.model = 'time_decay' then credits.amount end) as time_decay_amount
from credits
inner join click_events on credits.click_key = click_events.event_key
group by click_events.url
order by linear_amount desc, linear_checkouts desc, click_events.url nulls last
limit {{ limit }}
