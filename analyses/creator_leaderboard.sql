-- Authors of posts that are not deleted, by the views and likes of these posts in the period, and whether they are
-- still active at its end, the newest day with events.
{%- set start_date = param('start_date', '1970-01-01', 'date') %}
{%- set end_date = param('end_date', '9999-12-31', 'date') %}
{%- set active_days = param('active_days', 7, 'integer') %}
{%- set limit = param('limit', 10, 'integer') %}

with undeleted_posts as (
    select post_id, user_id
    from {{ ref('dim_posts_history') }}
    where is_current and not is_deleted and user_id is not null
),

metrics as (
    select post_id, cast(sum(views) as bigint) as views, cast(sum(likes) as bigint) as likes
    from {{ ref('agg_post_metrics_daily') }}
    where reporting_date between {{ start_date }} and {{ end_date }}
    group by post_id
),

activity as (
    select
        user_id,
        max(reporting_date) as last_active_date,
        max(max(reporting_date)) over () as newest_date
    from {{ ref('agg_user_metrics_daily') }}
    where reporting_date between {{ start_date }} and {{ end_date }}
    group by user_id
),

creators as (
    select
        undeleted_posts.user_id,
        count(*) as posts,
        cast(coalesce(sum(metrics.views), 0) as bigint) as views,
        cast(coalesce(sum(metrics.likes), 0) as bigint) as likes
    from undeleted_posts
    left join metrics on undeleted_posts.post_id = metrics.post_id
    group by undeleted_posts.user_id
)

select
    creators.user_id,
    users.user_name,
    creators.posts,
    creators.views,
    creators.likes,
    {{ ratio('creators.likes', 'creators.views') }} as like_ratio,
    activity.last_active_date,
    coalesce(
        {{ dbt.datediff('activity.last_active_date', 'activity.newest_date', 'day') }}
        < {{ active_days }} and not users.is_deleted,
        false
    ) as is_active
from creators
left join {{ ref('dim_users_history') }} as users on creators.user_id = users.user_id and users.is_current
left join activity on creators.user_id = activity.user_id
order by creators.views desc, creators.likes desc, creators.user_id
limit {{ limit }}
