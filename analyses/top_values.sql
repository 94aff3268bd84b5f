-- The most frequent values of each property. A property is a field in `properties`, or one of the columns below, which
-- a contract fills when its field has the column's name. On BigQuery give a start_time: without one every partition is
-- read.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set property = param('property', 'all', 'string') %}
{%- set event_type = param('event_type', 'all', 'string') %}
{%- set stream = param('stream', 'all', 'string') %}
{%- set values_each = param('values_each', 10, 'integer') %}
{%- set limit = param('limit', 1000, 'integer') %}
{%- set columns = ['brand', 'browser', 'category_code', 'city', 'country', 'os', 'page_title', 'traffic_source'] %}

with events as (
    select user_id, properties, {{ columns | join(', ') }}
    from {{ ref('fct_events') }}
    where event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and event_at >= {{ start_time }} and event_at < {{ end_time }}
        and (lower({{ event_type }}) = 'all' or event_type = lower({{ event_type }}))
        and (lower({{ stream }}) = 'all' or stream = lower({{ stream }}))
),

in_properties as (
    {{ each_property('events') }}
),

found as (
    select property, value, user_id
    from in_properties
    {%- for column in columns %}
    union all
    select '{{ column }}' as property, {{ column }} as value, user_id
    from events
    {%- endfor %}
),

counted as (
    select
        property,
        value,
        count(*) as events,
        count(distinct user_id) as users
    from found
    where value is not null and (lower({{ property }}) = 'all' or lower(property) = lower({{ property }}))
    group by property, value
),

ranked as (
    select
        *,
        count(*) over (partition by property) as distinct_values,
        sum(events) over (partition by property) as property_events,
        row_number() over (partition by property order by events desc, value) as place
    from counted
)

select
    property,
    value,
    events,
    users,
    {{ ratio('events', 'property_events') }} as share_of_events,
    distinct_values
from ranked
where place <= {{ values_each }}
order by property_events desc, property, place
limit {{ limit }}
