-- How often each value of a property occurs. On BigQuery, give a start_time: without one, every partition is read.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set property = param('property', 'all', 'string') %}
{%- set event_type = param('event_type', 'all', 'string') %}
{%- set stream = param('stream', 'all', 'string') %}
{%- set limit = param('limit', 100, 'integer') %}

with events as (
    select user_id, properties
    from {{ ref('fct_events') }}
    where {{ in_period(start_time, end_time) }}
        and (lower({{ event_type }}) = 'all' or event_type = lower({{ event_type }}))
        and (lower({{ stream }}) = 'all' or stream = lower({{ stream }}))
),

found as (
    {{ each_property('events') }}
)

select
    property,
    value,
    count(*) as events,
    count(distinct user_id) as users,
    {{ ratio('count(*)', 'sum(count(*)) over (partition by property)') }} as share_of_events
from found
where lower({{ property }}) = 'all' or lower(property) = lower({{ property }})
group by property, value
order by events desc, property, value is null, value
limit {{ limit }}
