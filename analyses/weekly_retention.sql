-- People by the week of their first event, and how many of them returned in each later week. Only the whole history
-- shows which week was a person's first, so all of it is read, whatever the dates.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}

with activity as (
    select distinct user_id, {{ first_day_of('week', 'reporting_date') }} as week
    from {{ ref('agg_user_metrics_daily') }}
),

members as (
    select user_id, min(week) as cohort_week
    from activity
    group by user_id
),

cohorts as (
    select cohort_week, count(*) as cohort_users
    from members
    where cohort_week between {{ start_date }} and {{ end_date }}
    group by cohort_week
),

weeks as (
    select distinct week from activity
),

returned as (
    select members.cohort_week, activity.week, count(*) as active_users
    from members
    inner join activity on members.user_id = activity.user_id
    group by members.cohort_week, activity.week
)

select
    cohorts.cohort_week,
    cast(
        {{ dbt.datediff('cohorts.cohort_week', 'weeks.week', 'day') }}
        / 7 as bigint
    ) as weeks_later,
    cohorts.cohort_users,
    coalesce(returned.active_users, 0) as active_users,
    {{ ratio('coalesce(returned.active_users, 0)', 'cohorts.cohort_users') }} as retention
from cohorts
inner join weeks on cohorts.cohort_week <= weeks.week
left join returned on cohorts.cohort_week = returned.cohort_week and weeks.week = returned.week
order by cohorts.cohort_week desc, weeks_later
