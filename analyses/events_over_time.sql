-- Events of each type per day or per hour, from the facts: the daily and hourly marts have columns for the shop's types
-- only.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set brand = param('brand', 'all', 'string') %}
{%- set category = param('category', 'all', 'string') %}
{%- set product_id = param('product_id', 'all', 'string') %}
{%- set event_type = param('event_type', 'all', 'string') %}
{%- set per = param('per', 'day', ['day', 'hour']) %}

with events as (
    select
        reporting_date,
        case when {{ per }} = 'hour' then reporting_hour_at end as reporting_hour_at,
        event_type,
        user_id
    from {{ ref('int_events_reported') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and event_at >= {{ start_time }} and event_at < {{ end_time }}
        and (lower({{ event_type }}) = 'all' or event_type = lower({{ event_type }}))
        and (lower({{ brand }}) = 'all' or lower(brand) = lower({{ brand }}))
        and (lower({{ category }}) = 'all' or lower(category_code) = lower({{ category }}))
        and (lower({{ product_id }}) = 'all' or product_id = {{ product_id }})
)

select
    reporting_date,
    reporting_hour_at,
    event_type,
    count(*) as events,
    count(distinct user_id) as users
from events
group by reporting_date, reporting_hour_at, event_type
order by reporting_date desc, reporting_hour_at desc, event_type
