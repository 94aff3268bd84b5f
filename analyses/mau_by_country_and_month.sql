-- People with an event in a month, by the country in which they lived at the time of the event. People who move within
-- a month count in both countries.
{%- set start_time = param('start_time', '1970-01-01 00:00:00', 'timestamp') %}
{%- set end_time = param('end_time', '9999-12-31 00:00:00', 'timestamp') %}
{%- set region = param('region', 'all', 'string') %}

with events as (
    select
        {{ first_day_of('month', 'events.reporting_date') }} as month,
        coalesce(countries.country_name, 'unknown') as country,
        countries.country_code,
        coalesce(countries.region, 'unknown') as region,
        events.user_id
    from {{ ref('int_events_reported') }} as events
    left join {{ ref('dim_users_history') }} as users
        on events.user_id = users.user_id
        and events.event_at >= users.valid_from
        and events.event_at < users.valid_to
    left join {{ ref('dim_countries') }} as countries on users.country_code = countries.country_code
    where events.event_date between cast({{ start_time }} as date) and cast({{ end_time }} as date)
        and events.event_at >= {{ start_time }} and events.event_at < {{ end_time }}
        and events.user_id is not null
)

select
    month,
    country,
    country_code,
    region,
    count(distinct user_id) as users,
    count(*) as events
from events
where lower({{ region }}) = 'all' or lower(region) = lower({{ region }})
group by month, country, country_code, region
order by month desc, users desc, country
