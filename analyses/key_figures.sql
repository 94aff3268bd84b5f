-- Key figures of a period in one row, of one brand, category and product or of all.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}

with events as (
    select
        {{ measures(['events', 'users', 'checkouts', 'purchases', 'revenue']) }},
        count(distinct case when event_type = 'purchase' then user_id end) as buyers
    from {{ ref('fct_events') }}
    where {{ in_period(start_time, end_time) }}
        and {{ of_products(brand, category, product_id) }}
),

sessions as (
    select count(*) as sessions
    from {{ ref('fct_sessions') }}
    where {{ in_period(start_time, end_time, 'session_started_at') }}
)

select
    events.events,
    events.users,
    -- sessions have no brand, category or product, and checkouts no brand or category
    case when lower({{ brand }}) = 'all' and lower({{ category }}) = 'all' and lower({{ product_id }}) = 'all'
        then sessions.sessions end as sessions,
    case when lower({{ brand }}) = 'all' and lower({{ category }}) = 'all' then events.checkouts end as checkouts,
    events.purchases,
    events.revenue,
    events.buyers,
    {{ ratio('events.buyers', 'events.users') }} as conversion_rate
from events
cross join sessions
