-- The figures of a period in one row, of one brand, category and product or of all.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}

with events as (
    select
        count(*) as events,
        count(distinct user_id) as users,
        count(case when event_type = 'checkout' then 1 end) as checkouts,
        count(case when event_type = 'purchase' then 1 end) as purchases,
        count(distinct case when event_type = 'purchase' then user_id end) as buyers,
        {{ sum_of_amounts("case when event_type = 'purchase' then price end") }} as revenue
    from {{ ref('fct_events') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and event_at >= {{ start_time }} and event_at < {{ end_time }}
        and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
        and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
        and (lower({{ product_id }}) = 'all' or product_id = {{ product_id }})
),

sessions as (
    select count(*) as sessions
    from {{ ref('fct_sessions') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and session_started_at >= {{ start_time }} and session_started_at < {{ end_time }}
)

select
    events.events,
    events.users,
    case when lower({{ brand }}) = 'all' and lower({{ category }}) = 'all' and lower({{ product_id }}) = 'all'
        then sessions.sessions end as sessions,
    case when lower({{ brand }}) = 'all' and lower({{ category }}) = 'all' then events.checkouts end as checkouts,
    events.purchases,
    events.revenue,
    events.buyers,
    {{ ratio('events.buyers', 'events.users') }} as conversion_rate
from events
cross join sessions
