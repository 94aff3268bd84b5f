-- The latest version of each user who is not deleted, with totals over their daily metrics.
{{ config(materialized='view') }}

with totals as (
    select
        user_id,
        sum(events) as events,
        sum(sessions) as sessions,
        sum(likes_given) as likes_given,
        min(reporting_date) as first_active_date,
        max(reporting_date) as last_active_date
    from {{ ref('agg_user_metrics_daily') }}
    group by user_id
)

select
    users.user_id,
    users.user_name,
    users.first_name,
    users.last_name,
    users.country_code,
    countries.country_name,
    countries.region,
    users.favorite_color,
    users.created_at,
    users.updated_at,
    cast(coalesce(totals.events, 0) as bigint) as events,
    cast(coalesce(totals.sessions, 0) as bigint) as sessions,
    cast(coalesce(totals.likes_given, 0) as bigint) as likes_given,
    totals.first_active_date,
    totals.last_active_date
from {{ ref('int_users_current') }} as users
left join totals on users.user_id = totals.user_id
left join {{ ref('dim_countries') }} as countries on users.country_code = countries.country_code
